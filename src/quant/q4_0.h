// Q4_0: 32 weights in 18 bytes, 4.5 bits each.
//
//   d    f16      scale
//   qs   16 bytes low nibble of byte i is weight i, high nibble is weight i + 16
//
//   w[i] = d * (q[i] - 8), q in 0..15
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ4_0 {
  static constexpr int kWeights = 32;
  uint16_t d;  // f16
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

inline void decode(const BlockQ4_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float((b.qs[i] & 15) - 8);
    out[i + 16] = d * float((b.qs[i] >> 4) - 8);
  }
}

}  // namespace plumb
