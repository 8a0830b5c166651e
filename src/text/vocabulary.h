// tokenizer.ggml.* as read and checked from a GGUF file: what every tokenizer has in common, whatever its
// algorithm. Rules and defaults are llama.cpp's (src/llama-vocab.cpp); where a file is inconsistent we refuse
// it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf.h"
#include "text/pretokenizers.h"
#include "text/tokenizer.h"

namespace plumb {

/// What a token is. Several may hold at once: a token marked normal whose text says that it ends a turn is
/// control too.
enum TokenAttribute : uint16_t {
  kUnknownToken = 1,
  kUnusedToken = 2,
  kNormalToken = 4,
  kControlToken = 8,
  kUserDefinedToken = 16,
  kByteToken = 32,
  kStripLeft = 64,    // white space before it belongs to it
  kStripRight = 128,  // and white space after it
};

struct Vocabulary {
  std::string_view model;  // "llama", "gpt2" or "gemma4"
  std::string_view pre;    // "" unless byte-pair encoding
  const PreTokenizer* rules = nullptr;
  std::vector<std::string_view> tokens;  // views into the file
  std::vector<float> scores;             // empty when the file has none: all are 0
  std::vector<uint16_t> attributes;      // TokenAttribute
  int bos = -1, eos = -1, unknown = -1, padding = -1;
  bool add_bos = false, add_eos = false, add_space_prefix = false;
  std::vector<int> end_of_generation;  // ascending

  bool is_bpe() const { return rules != nullptr; }
  bool raw_text() const { return !rules || rules->raw_text; }  // spaces are U+2581; bytes are <0xXX>
  int size() const { return static_cast<int>(tokens.size()); }
  bool has(int id, int attribute) const { return (attributes[static_cast<size_t>(id)] & attribute) != 0; }
};

/// Throws Error "tokenizer.*" naming the key, what was expected and what was found.
Vocabulary read_vocabulary(const Gguf& file);

/// The byte that "<0x41>" names, or -1: exactly two hexadecimal digits.
int byte_of_token(std::string_view token);

/// "<0x41>"
std::string token_of_byte(uint8_t byte);

}  // namespace plumb
