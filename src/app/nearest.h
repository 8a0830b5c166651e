// "Did you mean": the names most like the one that was asked for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace plumb {

/// Insertions, deletions and replacements that turn a into b.
size_t edit_distance(std::string_view a, std::string_view b);

/// At most `count` of the names, the most alike first; of long names only the first 255 bytes are compared.
std::vector<std::string> nearest(std::string_view asked, std::vector<std::string> names, size_t count);

}  // namespace plumb
