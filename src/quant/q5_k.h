// Q5_K: 256 weights in 176 bytes, 5.5 bits each; 8 groups of 32 weights.
//
//   d       f16        scale of the scales
//   dmin    f16        scale of the minima
//   scales  12 bytes   8 scales and 8 minima of 6 bits, as in Q4_K
//   qh      32 bytes   bit 4 of weight i: bit i/32 of byte i%32
//   qs      128 bytes  bits 0..3 of weight i: byte i/64*32 + i%32, low nibble when i/32 is even, else high
//   nibble
//
//   w[i] = (d * scale[j]) * q[i] - dmin * min[j], j = i/32, q in 0..31
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/q4_k.h"

namespace plumb {

struct [[gnu::packed]] BlockQ5_K {
  static constexpr int kWeights = 256;
  uint16_t d;     // f16
  uint16_t dmin;  // f16
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

inline void decode(const BlockQ5_K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin sm = scale_min_k4(b.scales, j);
    const float scale = d * float(sm.scale), min = dmin * float(sm.min);
    const uint8_t* qs = b.qs + j / 2 * 32;
    const int shift = j % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int q = (qs[i] >> shift & 15) | (b.qh[i] >> j & 1) << 4;
      out[32 * j + i] = scale * float(q) - min;
    }
  }
}

}  // namespace plumb
