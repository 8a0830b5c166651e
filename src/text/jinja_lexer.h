// A chat template's source as tokens. Whitespace is treated as transformers sets Jinja2 up: trim_blocks and
// lstrip_blocks on, the last newline dropped. Source: the Jinja2 3.1 documentation, "Whitespace Control".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::jinja {

struct Place {
  int line = 1, column = 1;  // in characters
};

enum class TokenKind : uint8_t {
  data,
  output_begin,
  output_end,
  block_begin,
  block_end,
  name,
  text,
  integer,
  real,
  mark,
  end
};

struct Token {
  TokenKind kind;
  std::string text;  // data, name, unescaped string, digits, or the operator
  Place place;
};

[[noreturn]] void fail_at(Place place, const char* code, std::string expected, std::string found);

/// Throws Error "template.syntax" with line and column.
std::vector<Token> lex(std::string_view source);

}  // namespace plumb::jinja
