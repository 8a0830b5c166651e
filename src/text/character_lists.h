// The characters that deepseek's pre-tokenizers list one by one, where other patterns name Unicode
// categories.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace plumb {

/// For each code point up to the last that is in a list, 0x80 + a bit for every list that holds it; later
/// ones are in none.
std::vector<uint8_t> make_list_classes();

/// The bit of a list, or 0: "space", "letters", "marks", "han", "kana".
int list_bit(std::string_view name);

}  // namespace plumb
