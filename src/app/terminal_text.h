// Foreign text on a terminal: nothing that a file holds may move the cursor, colour, hide or reorder what is
// shown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace plumb {

/// The text in double quotes, at most `columns` wide in all. Letters, digits, marks, punctuation and symbols
/// of every script stay; newline, tab, quote and backslash become \n \t \" \\; any other code point and any
/// byte that is no UTF-8 becomes \u{hex} or \xNN. What is cut ends in "..." after the quote.
std::string quote(std::string_view text, int64_t columns = INT64_MAX);

/// Columns that UTF-8 text takes on a terminal.
int64_t display_width(std::string_view text);

/// The text filled with spaces up to `columns`.
std::string padded(std::string text, int64_t columns);

/// "98362432" as "93.8 MiB".
std::string readable_bytes(int64_t n);

}  // namespace plumb
