// Q5_1: 32 weights in 24 bytes, 6 bits each.
//
//   d    f16      scale
//   m    f16      value of q = 0 (the block's minimum)
//   qh   4 bytes  bit i of the little-endian 32-bit word is bit 4 of q[i]
//   qs   16 bytes low nibble of byte i is bits 0..3 of q[i], high nibble of q[i + 16]
//
//   w[i] = d * q[i] + m, q in 0..31; the product is rounded before the sum
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ5_1 {
  static constexpr int kWeights = 32;
  uint16_t d;  // f16
  uint16_t m;  // f16
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

inline void decode(const BlockQ5_1& b, float* out) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    const int high_lo = b.qh[i / 8] >> i % 8 & 1;
    const int high_hi = b.qh[2 + i / 8] >> i % 8 & 1;
    out[i] = d * float((b.qs[i] & 15) | high_lo << 4) + m;
    out[i + 16] = d * float(b.qs[i] >> 4 | high_hi << 4) + m;
  }
}

}  // namespace plumb
