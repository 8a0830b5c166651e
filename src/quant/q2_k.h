// Q2_K: 256 weights in 84 bytes, 2.625 bits each; 16 groups of 16 weights.
//
//   scales  16 bytes  group g: low nibble scale, high nibble minimum
//   qs      64 bytes  weight i: byte i/128*32 + i%32, bits 2*(i/32%4) and above
//   d       f16       scale of the scales
//   dmin    f16       scale of the minima
//
//   w[i] = (d * (scales[g] & 15)) * q[i] - dmin * (scales[g] >> 4), g = i/16, q in 0..3
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ2_K {
  static constexpr int kWeights = 256;
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d;     // f16
  uint16_t dmin;  // f16
};
static_assert(sizeof(BlockQ2_K) == 84);

inline void decode(const BlockQ2_K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * float(b.scales[g] & 15);
    const float min = dmin * float(b.scales[g] >> 4);
    const uint8_t* qs = b.qs + g / 8 * 32 + g % 2 * 16;
    const int shift = g / 2 % 4 * 2;
    for (int i = 0; i < 16; ++i) out[16 * g + i] = scale * float(qs[i] >> shift & 3) - min;
  }
}

}  // namespace plumb
