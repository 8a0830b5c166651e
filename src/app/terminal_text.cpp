#include "app/terminal_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>

namespace plumb {
namespace {

bool is_visible(utf8proc_int32_t c) {
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_CN:  // unassigned, control, format, surrogate, private use
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

struct Piece {
  std::string text;
  int64_t columns = 0;
  size_t bytes = 0;  // consumed
};

Piece next_piece(std::string_view rest) {
  utf8proc_int32_t c = -1;
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(rest.data());
  const utf8proc_ssize_t n = utf8proc_iterate(p, utf8proc_ssize_t(std::min<size_t>(rest.size(), 4)), &c);
  Piece piece;
  piece.bytes = n > 0 ? size_t(n) : 1;
  if (n <= 0) {
    piece.text = fmt::format("\\x{:02x}", static_cast<unsigned char>(rest.front()));
  } else if (c == '\n') {
    piece.text = "\\n";
  } else if (c == '\t') {
    piece.text = "\\t";
  } else if (c == '"' || c == '\\') {
    piece.text = std::string("\\") + char(c);
  } else if (!is_visible(c)) {
    piece.text = fmt::format("\\u{{{:x}}}", uint32_t(c));
  } else {
    piece.text = rest.substr(0, piece.bytes);
    piece.columns = utf8proc_charwidth(c);
    return piece;
  }
  piece.columns = int64_t(piece.text.size());
  return piece;
}

}  // namespace

std::string quote(std::string_view text, int64_t columns) {
  std::string out = "\"";
  size_t fitting = out.size();  // what still fits when "..." must follow
  int64_t width = 2;            // both quotes
  int marks = 0;                // of no width, on one letter
  while (!text.empty()) {
    Piece piece = next_piece(text);
    marks = piece.columns == 0 ? marks + 1 : 0;
    if (marks > 4) piece.text.clear();  // a tower of marks would cover other lines
    width += piece.columns;
    if (width > columns) return out.substr(0, fitting) + "\"...";
    out += piece.text;
    if (width + 3 <= columns) fitting = out.size();
    text.remove_prefix(piece.bytes);
  }
  return out + '"';
}

int64_t display_width(std::string_view text) {
  int64_t width = 0;
  while (!text.empty()) {
    utf8proc_int32_t c = -1;
    const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
    const utf8proc_ssize_t n = utf8proc_iterate(p, utf8proc_ssize_t(std::min<size_t>(text.size(), 4)), &c);
    width += n > 0 ? utf8proc_charwidth(c) : 1;
    text.remove_prefix(n > 0 ? size_t(n) : 1);
  }
  return width;
}

std::string padded(std::string text, int64_t columns) {
  text.append(size_t(std::max<int64_t>(0, columns - display_width(text))), ' ');
  return text;
}

std::string readable_bytes(int64_t n) {
  const char* const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double v = double(n);
  int unit = 0;
  for (; v >= 1024; ++unit) v /= 1024;
  return unit == 0 ? fmt::format("{} bytes", n) : fmt::format("{:.1f} {}", v, units[unit]);
}

}  // namespace plumb
