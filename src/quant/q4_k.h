// Q4_K: 256 weights in 144 bytes, 4.5 bits each; 8 groups of 32 weights.
//
//   d       f16        scale of the scales
//   dmin    f16        scale of the minima
//   scales  12 bytes   8 scales and 8 minima of 6 bits, see scale_min_k4
//   qs      128 bytes  weight i: byte i/64*32 + i%32, low nibble when i/32 is even, else high nibble
//
//   w[i] = (d * scale[j]) * q[i] - dmin * min[j], j = i/32, q in 0..15
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ4_K {
  static constexpr int kWeights = 256;
  uint16_t d;     // f16
  uint16_t dmin;  // f16
  uint8_t scales[12];
  uint8_t qs[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

struct ScaleMin {
  int scale;  // 0..63
  int min;    // 0..63
};

/// Scale and minimum of group j (0..7) of a Q4_K or Q5_K block. Groups 0..3 are the low six bits of bytes j
/// and 4 + j; groups 4..7 take four bits from byte 4 + j (scale low, minimum high nibble) and their two high
/// bits from the top of bytes j - 4 and j.
inline ScaleMin scale_min_k4(const uint8_t* scales, int j) {
  if (j < 4) return {scales[j] & 63, scales[4 + j] & 63};
  return {(scales[4 + j] & 15) | scales[j - 4] >> 6 << 4, scales[4 + j] >> 4 | scales[j] >> 6 << 4};
}

inline void decode(const BlockQ4_K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int j = 0; j < 8; ++j) {
    const ScaleMin sm = scale_min_k4(b.scales, j);
    const float scale = d * float(sm.scale), min = dmin * float(sm.min);
    const uint8_t* qs = b.qs + j / 2 * 32;
    const int shift = j % 2 * 4;
    for (int i = 0; i < 32; ++i) out[32 * j + i] = scale * float(qs[i] >> shift & 15) - min;
  }
}

}  // namespace plumb
