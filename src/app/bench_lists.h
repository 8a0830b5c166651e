// Lists of numbers in llama-bench's spelling.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace plumb {

/// "1,2,4", "1-8", "1-8+2" or "1-8*2", each text a flag's value, joined. Throws Error "usage.value" for
/// anything else, for numbers outside [least, most] and for more than 10,000 of them.
std::vector<int> parse_counts(const std::vector<std::string>& texts, const char* key, int least, int most);

/// "512,128": a prompt and an answer, each from 0 on. Throws Error "usage.value".
std::pair<int, int> parse_pair(const std::string& text, const char* key);

/// Parts between commas, of all texts.
std::vector<std::string> parse_words(const std::vector<std::string>& texts);

}  // namespace plumb
