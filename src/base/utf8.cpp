// The two readings of UTF-8; see utf8.h. The strict one follows table 3-7 of the Unicode Standard 15.0.
#include "base/utf8.h"

#include <cstring>

namespace plumb {
namespace {

constexpr Utf8Step bad(int length) { return {Utf8Step::State::invalid, kReplacementCharacter, length}; }

uint8_t byte_at(std::string_view text, size_t position) { return static_cast<uint8_t>(text[position]); }

}  // namespace

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
    return;
  }
  if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
  } else {
    if (code < 0x10000) {
      out += static_cast<char>(0xE0 | (code >> 12));
    } else {
      out += static_cast<char>(0xF0 | (code >> 18));
      out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    }
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
  }
  out += static_cast<char>(0x80 | (code & 0x3F));
}

Utf8Step utf8_step(std::string_view text, size_t position) {
  const uint8_t lead = byte_at(text, position);
  if (lead < 0x80) return {Utf8Step::State::valid, lead, 1};
  if (lead < 0xC2 || lead > 0xF4) return bad(1);
  const int length = utf8_length(lead);
  // The second byte decides about overlong forms, surrogates and the end of Unicode.
  const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  uint32_t code = lead & (0xFFu >> (length + 1));
  for (int i = 1; i < length; ++i) {
    if (position + static_cast<size_t>(i) >= text.size()) {
      return {Utf8Step::State::incomplete, kReplacementCharacter, i};
    }
    const uint8_t next = byte_at(text, position + static_cast<size_t>(i));
    if (next < (i == 1 ? low : 0x80) || next > (i == 1 ? high : 0xBF)) return bad(i);
    code = (code << 6) | (next & 0x3Fu);
  }
  return {Utf8Step::State::valid, code, length};
}

bool is_valid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight = 0;
    while (i + 8 <= text.size()) {  // eight ASCII bytes at a time
      std::memcpy(&eight, text.data() + i, 8);
      if (eight & 0x8080808080808080ull) break;
      i += 8;
    }
    if (i >= text.size()) break;
    const Utf8Step step = utf8_step(text, i);
    if (step.state != Utf8Step::State::valid) return false;
    i += static_cast<size_t>(step.length);
  }
  return true;
}

std::string to_valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const Utf8Step step = utf8_step(text, i);
    if (step.state == Utf8Step::State::valid) {
      out.append(text.substr(i, static_cast<size_t>(step.length)));
    } else {
      append_utf8(out, kReplacementCharacter);
    }
    i += static_cast<size_t>(step.length);
  }
  return out;
}

}  // namespace plumb
