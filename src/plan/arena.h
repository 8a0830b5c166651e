// Buffers by lifetime: two values share bytes when no step needs both.
#pragma once

#include <cstdint>
#include <vector>

namespace plumb {

struct Lifetime {
  int first, last;  // steps that write and last read it, inclusive
  int64_t bytes;
  int64_t offset = -1;  // the answer
};

/// Sets every offset (a multiple of 64) by first fit in order of the first step; returns the bytes needed.
int64_t place(std::vector<Lifetime>& buffers);

}  // namespace plumb
