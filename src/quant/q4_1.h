// Q4_1: 32 weights in 20 bytes, 5 bits each.
//
//   d    f16      scale
//   m    f16      value of q = 0 (the block's minimum)
//   qs   16 bytes low nibble of byte i is weight i, high nibble is weight i + 16
//
//   w[i] = d * q[i] + m, q in 0..15; the product is rounded before the sum
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ4_1 {
  static constexpr int kWeights = 32;
  uint16_t d;  // f16
  uint16_t m;  // f16
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

inline void decode(const BlockQ4_1& b, float* out) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float(b.qs[i] & 15) + m;
    out[i + 16] = d * float(b.qs[i] >> 4) + m;
  }
}

}  // namespace plumb
