// UTF-8 as bytes arrive from outside: strict decoding (RFC 3629) for what we show, and the lenient reading of
// llama.cpp for what a tokenizer must reproduce.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace plumb {

inline constexpr uint32_t kReplacementCharacter = 0xFFFD;

/// Bytes of the character that `lead` announces: 1 to 4; 1 also for continuation bytes.
inline int utf8_length(uint8_t lead) { return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

/// Appends the UTF-8 of a code point below 0x110000.
void append_utf8(std::string& out, uint32_t code);

struct Utf8Step {
  enum class State { valid, invalid, incomplete };
  State state;
  uint32_t code;  // U+FFFD unless valid
  int length;     // bytes to step over: the character, or the longest prefix of one (Unicode 15, section 3.9)
};

/// The character at text[position], position < text.size(), by the strict rules: no surrogates, no overlong
/// forms. `incomplete` when the text ends inside a character that could still become valid.
Utf8Step utf8_step(std::string_view text, size_t position);

/// True when every byte belongs to a strictly valid character.
bool is_valid_utf8(std::string_view text);

/// The text with each invalid or incomplete part replaced by U+FFFD.
std::string to_valid_utf8(std::string_view text);

/// Reads as llama.cpp's tokenizers do: overlong forms and surrogates are taken as code points; any other
/// invalid byte is one U+FFFD of length 1, also a lead byte above 0x10FFFF.
inline Utf8Step utf8_step_lenient(std::string_view text, size_t position) {
  constexpr Utf8Step bad{Utf8Step::State::invalid, kReplacementCharacter, 1};
  const uint8_t lead = static_cast<uint8_t>(text[position]);
  if (lead < 0x80) return {Utf8Step::State::valid, lead, 1};
  if (lead < 0xC0 || lead >= 0xF8) return bad;
  const int length = utf8_length(lead);
  if (position + static_cast<size_t>(length) > text.size()) return bad;
  uint32_t code = lead & (0xFFu >> (length + 1));
  for (int i = 1; i < length; ++i) {
    const uint8_t next = static_cast<uint8_t>(text[position + static_cast<size_t>(i)]);
    if ((next & 0xC0) != 0x80) return bad;
    code = (code << 6) | (next & 0x3Fu);
  }
  if (code > 0x10FFFF) return bad;
  return {Utf8Step::State::valid, code, length};
}

}  // namespace plumb
