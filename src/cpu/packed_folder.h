// The folder of packed weights, kept small: what no model needs any more goes, and what was used longest ago.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace plumb {

/// Room for a packed file of `bytes` at `path`, in whose folder packed files together take no more than half
/// of what the disk would have free without them; `free` bytes it has now, asked for if not given. Removes
/// files whose model is gone, files begun more than a day ago and never finished; then, as far as that is
/// needed, the least recently used. Touches nothing else in the folder, nor `path`, which is to be replaced.
/// False, with nothing used removed, if `bytes` alone is too much.
bool make_packed_room(const std::string& path, int64_t bytes, std::optional<int64_t> free = {});

}  // namespace plumb
