// Reading and judging a vocabulary; see vocabulary.h.
#include "text/vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/special_tokens.h"

namespace plumb {
namespace {

constexpr int64_t kMaxTokens = 4'000'000;  // hardening.md, limits

std::string key(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

void read_model(const Gguf& file, Vocabulary& v) {
  const auto model = file.text(key("model"));
  if (!model) file.missing(key("model"), "the kind of tokenizer: llama, gpt2 or gemma4");
  v.model = *model;
  if (v.model != "llama" && v.model != "gpt2" && v.model != "gemma4") {
    file.refuse(key("model"), "tokenizer.model",
                "one of llama (SentencePiece), gpt2 (byte-level BPE), gemma4",
                fmt::format("'{}'", printable(v.model)));
  }
  if (v.model == "llama") return;
  v.pre = v.model == "gemma4" ? "gemma4" : file.text(key("pre")).value_or("default");
  if (v.pre.empty()) v.pre = "default";
  v.rules = find_pre_tokenizer(v.pre);
  if (!v.rules) {
    std::string names;
    for (const PreTokenizer& p : all_pre_tokenizers()) names.append(" ").append(p.name);
    file.refuse(key("pre"), "tokenizer.pre", "a known pre-tokenizer:" + names,
                fmt::format("'{}'", printable(v.pre)));
  }
}

void check_size(const Gguf& file, const Vocabulary& v, std::string_view name, size_t size) {
  if (size == v.tokens.size()) return;
  file.refuse(key(name), "tokenizer.size", fmt::format("{} elements, one for each token", v.tokens.size()),
              fmt::format("{}", size));
}

void read_scores(const Gguf& file, Vocabulary& v) {
  const GgufValue* value = file.find(key("scores"));
  if (!value) return;
  if (value->type == GgufType::i32) {
    const auto integers = *file.integers(key("scores"), INT32_MIN, INT32_MAX);
    for (int64_t i : integers) v.scores.push_back(static_cast<float>(i));
  } else {
    v.scores = *file.reals(key("scores"));
  }
  check_size(file, v, "scores", v.scores.size());
  for (size_t i = 0; i < v.scores.size(); ++i) {
    if (!std::isfinite(v.scores[i])) {
      file.refuse(key("scores"), "tokenizer.score", "finite scores", fmt::format("{} at {}", v.scores[i], i));
    }
  }
}

void read_types(const Gguf& file, Vocabulary& v) {
  constexpr uint16_t attribute[] = {
      0, kNormalToken, kUnknownToken, kControlToken, kUserDefinedToken, kUnusedToken, kByteToken};
  v.attributes.assign(v.tokens.size(), kNormalToken);
  const auto types = file.integers(key("token_type"), 0, 6);
  if (!types) return;
  check_size(file, v, "token_type", types->size());
  for (size_t i = 0; i < types->size(); ++i) {
    v.attributes[i] = attribute[static_cast<size_t>((*types)[i])];
    if (v.attributes[i] == kByteToken && byte_of_token(v.tokens[i]) < 0) {
      file.refuse(key("tokens"), "tokenizer.byte_token", "a byte token spelled <0x00> to <0xFF>",
                  fmt::format("'{}' at {}", printable(v.tokens[i]), i));
    }
  }
}

// An id, `otherwise` when the key is absent, -1 when the file says that there is none.
int read_id(const Gguf& file, const Vocabulary& v, std::string_view name, int otherwise, bool strict) {
  const auto id = file.integer(key(name), INT32_MIN, UINT32_MAX);
  if (!id) return otherwise < v.size() ? otherwise : -1;
  if (*id < 0 || *id == UINT32_MAX) return -1;
  if (*id < v.size()) return static_cast<int>(*id);
  if (strict) {
    file.refuse(key(name), "tokenizer.id", fmt::format("an id below {}", v.size()), fmt::format("{}", *id));
  }
  return -1;  // models name a padding token that they then forgot to add; nothing here needs it
}

void read_ids(const Gguf& file, Vocabulary& v) {
  const bool spm = !v.is_bpe();
  v.bos = read_id(file, v, "bos_token_id", spm ? 1 : -1, true);
  v.eos = read_id(file, v, "eos_token_id", spm ? 2 : -1, true);
  v.unknown = read_id(file, v, "unknown_token_id", spm ? 0 : -1, true);
  v.padding = read_id(file, v, "padding_token_id", -1, false);
  v.add_bos = file.flag(key("add_bos_token")).value_or(spm || v.rules->add_bos);
  if (v.rules && v.rules->raw_text)
    v.add_bos = true;  // llama.cpp pull request 21500: files of gemma4 say otherwise
  v.add_eos = file.flag(key("add_eos_token")).value_or(false);
  v.add_space_prefix = file.flag(key("add_space_prefix")).value_or(spm) && spm;
  if (v.add_bos && v.bos < 0)
    file.missing(key("bos_token_id"), "the id that starts every text of this tokenizer");
  if (v.add_eos && v.eos < 0)
    file.missing(key("eos_token_id"), "the id that ends every text, as add_eos_token asks");
}

void read_special(const Gguf& file, Vocabulary& v) {
  SpecialIds ids;
  ids.eot = read_id(file, v, "eot_token_id", -1, false);
  ids.eom = read_id(file, v, "eom_token_id", -1, false);
  auto fim = [&](std::string_view name, std::string_view old) {
    const int id = read_id(file, v, name, -1, false);
    return id >= 0 || old.empty() ? id : read_id(file, v, old, -1, false);
  };
  ids.fim_prefix = fim("fim_pre_token_id", "prefix_token_id");
  ids.fim_suffix = fim("fim_suf_token_id", "suffix_token_id");
  ids.fim_middle = fim("fim_mid_token_id", "middle_token_id");
  ids.fim_padding = fim("fim_pad_token_id", "");
  ids.fim_repository = fim("fim_rep_token_id", "");
  ids.fim_separator = fim("fim_sep_token_id", "");
  mark_special_tokens(v, ids);
  mark_stripping_tokens(v, file.text("general.name").value_or(""),
                        file.text("general.architecture").value_or(""));
}

}  // namespace

Vocabulary read_vocabulary(const Gguf& file) {
  Vocabulary v;
  read_model(file, v);
  auto tokens = file.texts(key("tokens"));
  if (!tokens) file.missing(key("tokens"), "the tokens' texts");
  if (tokens->empty() || static_cast<int64_t>(tokens->size()) > kMaxTokens) {
    file.refuse(key("tokens"), "tokenizer.size", fmt::format("1 to {} tokens", kMaxTokens),
                fmt::format("{}", tokens->size()));
  }
  v.tokens = std::move(*tokens);
  read_scores(file, v);
  read_types(file, v);
  read_ids(file, v);
  read_special(file, v);
  return v;
}

int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

std::string token_of_byte(uint8_t byte) { return fmt::format("<0x{:02X}>", byte); }

}  // namespace plumb
