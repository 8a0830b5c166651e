// `plumb tokenize` and `plumb detokenize`: text to ids and back, printed as llama-tokenize prints them or as
// JSON.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "app/command.h"
#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "gguf/gguf.h"
#include "text/tokenizer.h"

namespace plumb {
namespace {

constexpr int64_t kMaxText = int64_t{1} << 30;  // bytes

struct TokenizeFlags {
  std::string model, text, file;
  bool has_text = false, ids = false, json = false, no_bos = false, parse_special = false;
};

struct DetokenizeFlags {
  std::string model;
  std::vector<std::string> ids;
  bool json = false, special = false;
};

std::string standard_input() {
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

// A JSON string; bytes that are no UTF-8 become U+FFFD.
std::string json_string(std::string_view bytes) {
  std::string s = "\"";
  for (char c : to_valid_utf8(bytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      s += '\\';
      s += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      s += fmt::format("\\u{:04x}", byte);
    } else {
      s += c;
    }
  }
  return s + '"';
}

// A piece for the terminal: line breaks as they are, other control characters and broken UTF-8 made visible.
std::string shown(std::string_view piece) {
  std::string s;
  for (size_t i = 0; i < piece.size();) {
    const Utf8Step step = utf8_step(piece, i);
    const auto length = static_cast<size_t>(step.length);
    const bool control = (step.code < 0x20 && step.code != '\n' && step.code != '\t') ||
                         (step.code >= 0x7F && step.code < 0xA0) ||
                         (step.code >= 0x202A && step.code <= 0x202E) ||
                         (step.code >= 0x2066 && step.code <= 0x2069);
    if (step.state == Utf8Step::State::valid && !control) {
      s.append(piece, i, length);
    } else {
      for (char c : piece.substr(i, length)) s += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    i += length;
  }
  return s;
}

void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error({.code = "file.write",
                 .expected = "to write to standard output",
                 .found = "that it is closed or full"});
  }
}

void tokenize(const TokenizeFlags& flags) {
  const Gguf file = Gguf::open(flags.model);
  const Tokenizer tokenizer = Tokenizer::load(file);
  const std::string text = flags.has_text                            ? flags.text
                           : flags.file.empty() || flags.file == "-" ? standard_input()
                                                                     : read_file(flags.file, kMaxText);
  const auto tokens =
      tokenizer.encode_spans(text, {.add_special = !flags.no_bos, .parse_special = flags.parse_special});
  std::string out;
  for (const TokenSpan& t : tokens) {
    if (flags.json) {
      out += fmt::format("{}{{\"id\": {}, \"piece\": {}, \"bytes\": [{}, {}]}}", out.empty() ? "" : ",\n ",
                         t.id, json_string(tokenizer.piece(t.id, true)), t.begin, t.end);
    } else if (flags.ids) {
      out += fmt::format("{}{}", out.empty() ? "" : ", ", t.id);
    } else {
      out += fmt::format("{:6} -> '{}'\n", t.id, shown(tokenizer.piece(t.id, true)));
    }
  }
  print(flags.json || flags.ids ? "[" + out + "]\n" : out);
}

// "1, 2 3" as ids; everything between must be commas, spaces or brackets.
std::vector<int> parse_ids(std::string_view text) {
  std::vector<int> ids;
  for (size_t i = 0; i < text.size();) {
    if (std::string_view(" ,[]\n\r\t").find(text[i]) != std::string_view::npos) {
      ++i;
      continue;
    }
    int id = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + text.size(), id);
    const auto next = static_cast<size_t>(end - text.data());
    const bool whole =
        next == text.size() || std::string_view(" ,[]\n\r\t").find(text[next]) != std::string_view::npos;
    if (error != std::errc() || !whole) {
      throw Error({.code = "usage.ids",
                   .expected = "token ids separated by commas or spaces",
                   .found = fmt::format("'{}'", printable(text.substr(i), 20)),
                   .where = {.offset = static_cast<int64_t>(i)}});
    }
    ids.push_back(id);
    i = next;
  }
  return ids;
}

void detokenize(const DetokenizeFlags& flags) {
  const Gguf file = Gguf::open(flags.model);
  const Tokenizer tokenizer = Tokenizer::load(file);
  std::string given;
  for (const std::string& part : flags.ids) given.append(part).append(" ");
  const std::vector<int> ids = parse_ids(flags.ids.empty() ? standard_input() : given);
  if (!flags.json) return print(tokenizer.decode(ids, flags.special));
  std::string pieces;
  for (int id : ids) {
    pieces.append(pieces.empty() ? "" : ", ").append(json_string(tokenizer.piece(id, flags.special)));
  }
  print(fmt::format("{{\"text\": {}, \"pieces\": [{}]}}\n", json_string(tokenizer.decode(ids, flags.special)),
                    pieces));
}

}  // namespace

void add_tokenize(CLI::App& root) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = root.add_subcommand("tokenize", "Turn a text into token ids");
  command->add_option("-m,--model", flags->model, "GGUF file")->required();
  CLI::Option* text = command->add_option("-p,--prompt", flags->text, "the text; else standard input");
  command->add_option("-f,--file", flags->file, "file that holds the text; - is standard input")
      ->excludes(text);
  command->add_flag("--ids", flags->ids, "print the ids alone, as a list");
  command->add_flag("--json", flags->json, "print id, piece and bytes of the text for each token")
      ->excludes("--ids");
  command->add_flag("--no-bos", flags->no_bos, "add neither BOS nor EOS");
  command->add_flag("--parse-special,!--no-parse-special", flags->parse_special,
                    "text that spells a control token becomes that token");
  command->callback([flags, text] {
    flags->has_text = text->count() > 0;
    tokenize(*flags);
  });
}

void add_detokenize(CLI::App& root) {
  auto flags = std::make_shared<DetokenizeFlags>();
  CLI::App* command = root.add_subcommand("detokenize", "Turn token ids into text");
  command->add_option("-m,--model", flags->model, "GGUF file")->required();
  command->add_option("ids", flags->ids, "ids, separated by commas or spaces; else standard input");
  command->add_flag("--json", flags->json, "print the text and each token's piece as JSON");
  command->add_flag("--special", flags->special, "spell out control tokens");
  command->callback([flags] { detokenize(*flags); });
}

}  // namespace plumb
