// Python's operations on strings, on UTF-8: whitespace, case, splitting, formatting, escapes of literals.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace plumb::jinja {

bool is_space(uint32_t code);  // str.isspace of one character

/// str.strip: takes the characters of `set` off the ends; an empty set means whitespace.
std::string_view strip(std::string_view s, std::string_view set, bool left, bool right);

std::string upper(std::string_view s);
std::string lower(std::string_view s);
std::string title(std::string_view s);       // str.title
std::string capitalize(std::string_view s);  // str.capitalize

/// str.split and str.rsplit at whitespace (no separator) or at a separator that is not empty; at < 0: no
/// bound.
std::vector<std::string> split(std::string_view s, const std::string* separator, int64_t at_most);
std::vector<std::string> rsplit(std::string_view s, const std::string* separator, int64_t at_most);
std::vector<std::string> splitlines(std::string_view s, bool keep_ends);

std::string replace(std::string_view s, std::string_view from, std::string_view to, int64_t at_most);
std::string escape_html(std::string_view s);        // as markupsafe does
std::string unescape(std::string_view s);           // the escapes of a string literal
size_t byte_of(std::string_view s, int64_t index);  // where that character begins; s.size() beyond the end
int64_t characters(std::string_view s);

enum class CharacterClass { alpha, digit, alnum, space, upper, lower };
bool all_are(std::string_view s, CharacterClass c);  // str.isalpha and its like: false for ""

}  // namespace plumb::jinja
