// FNV-1a: names files of the cache by what they depend on.
#pragma once

#include <cstdint>
#include <string_view>

namespace plumb::trace {

inline uint64_t digest(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : text) h = (h ^ uint8_t(c)) * 0x100000001b3u;
  return h;
}

}  // namespace plumb::trace
