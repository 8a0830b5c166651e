// Tokenizes many texts in one process, for the tests that compare with other implementations.
// Usage: plumb_tokenize_tool MODEL.gguf [--bos] [--parse-special] [--check-spans] < records > lines
// A record is a decimal length, a line feed, and so many bytes; a line of output holds the ids of one record.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "base/error.h"
#include "gguf/gguf.h"
#include "text/tokenizer.h"

namespace {

// Spans must hold the same ids and go forward without overlap.
bool spans_agree(const plumb::Tokenizer& tokenizer, const std::string& text, plumb::EncodeOptions options,
                 const std::vector<int>& ids) {
  const auto spans = tokenizer.encode_spans(text, options);
  if (spans.size() != ids.size()) return false;
  size_t at = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (spans[i].id != ids[i] || spans[i].begin < at || spans[i].end < spans[i].begin) return false;
    at = spans[i].end;
  }
  return at <= text.size();
}

int run(int argc, char** argv) {
  plumb::EncodeOptions options{.add_special = false, .parse_special = false};
  bool check_spans = false;
  for (int i = 2; i < argc; ++i) {
    const std::string flag = argv[i];
    options.add_special = options.add_special || flag == "--bos";
    options.parse_special = options.parse_special || flag == "--parse-special";
    check_spans = check_spans || flag == "--check-spans";
  }
  const plumb::Gguf file = plumb::Gguf::open(argv[1]);
  const plumb::Tokenizer tokenizer = plumb::Tokenizer::load(file);
  std::string line, text;
  while (std::getline(std::cin, line)) {
    text.resize(std::strtoull(line.c_str(), nullptr, 10));
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    const auto ids = tokenizer.encode(text, options);
    for (size_t i = 0; i < ids.size(); ++i) std::cout << (i ? " " : "") << ids[i];
    std::cout << '\n';
    if (check_spans && !spans_agree(tokenizer, text, options, ids)) {
      std::cerr << "spans disagree with ids for " << plumb::printable(text) << '\n';
      return 1;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  try {
    return run(argc, argv);
  } catch (const plumb::Error& e) {
    std::cerr << "error: " << e.what() << '\n';
    return e.code() == "tokenizer.model" || e.code() == "tokenizer.pre" ? 3 : 1;
  }
}
