// Q8_0: 32 weights in 34 bytes, 8.5 bits each.
//
//   d    f16      scale
//   qs   32 int8  q[i]
//
//   w[i] = d * q[i], q in -128..127
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ8_0 {
  static constexpr int kWeights = 32;
  uint16_t d;  // f16
  int8_t qs[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

inline void decode(const BlockQ8_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; ++i) out[i] = d * float(b.qs[i]);
}

}  // namespace plumb
