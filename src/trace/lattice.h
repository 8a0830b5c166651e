// Elements of a quantised row are integer multiples of one step: what a few printed numbers tell about how a
// block was decoded, without the file.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "trace/trace.h"

namespace plumb::trace {

/// The codes of a format whose elements are step * code (Q4_0: -8 to 7, stored as 0 to 15).
struct LatticeFormat {
  const char* name;
  int least, most;
  int stored;  // added to a code, gives what the block holds
};

struct Lattice {
  const LatticeFormat* format = nullptr;
  int solutions = 0;       // different sets of codes that the numbers allow
  double step = 0;         // of the first
  std::vector<int> codes;  // of the first, with `stored` added
  double chance = 0;       // expected solutions if the numbers were arbitrary
};

/// For every format: the numbers as step * code with the step free. Numbers must be of one scale (16 elements
/// in Q6_K, 32 in Q4_0, Q5_0 and Q8_0). At most one solution is spelled out. Empty for fewer than two numbers
/// that are not zero.
std::vector<Lattice> find_lattices(std::span<const Number> numbers);

/// The step and offset of decoded elements that share one: x = offset + step * k; step 0 if they have none.
struct Ruler {
  double step = 0, offset = 0;
};
Ruler ruler_of(std::span<const float> elements);

}  // namespace plumb::trace
