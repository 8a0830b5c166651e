// Q5_0: 32 weights in 22 bytes, 5.5 bits each.
//
//   d    f16      scale
//   qh   4 bytes  bit i of the little-endian 32-bit word is bit 4 of q[i]
//   qs   16 bytes low nibble of byte i is bits 0..3 of q[i], high nibble of q[i + 16]
//
//   w[i] = d * (q[i] - 16), q in 0..31
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ5_0 {
  static constexpr int kWeights = 32;
  uint16_t d;  // f16
  uint8_t qh[4];
  uint8_t qs[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

inline void decode(const BlockQ5_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    const int high_lo = b.qh[i / 8] >> i % 8 & 1;
    const int high_hi = b.qh[2 + i / 8] >> i % 8 & 1;
    out[i] = d * float(((b.qs[i] & 15) | high_lo << 4) - 16);
    out[i + 16] = d * float((b.qs[i] >> 4 | high_hi << 4) - 16);
  }
}

}  // namespace plumb
