// Q3_K: 256 weights in 110 bytes, 3.4375 bits each; 16 groups of 16 weights.
//
//   hmask   32 bytes  weight i: bit i/32 of byte i%32; set means bit 2 of q + 4 is set, so that q >= 0
//   qs      64 bytes  low two bits of weight i: byte i/128*32 + i%32, bits 2*(i/32%4) and above
//   scales  12 bytes  16 scales of 6 bits: low four bits of scale g: byte g%8, nibble g/8; high two bits:
//   byte 8 + g%4,
//                     bits 2*(g/4) and above
//   d       f16       scale of the scales
//
//   w[i] = (d * (scale[g] - 32)) * q[i], g = i/16, q in -4..3
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ3_K {
  static constexpr int kWeights = 256;
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockQ3_K) == 110);

/// Scale g (0..15) of a Q3_K block, -32..31.
inline int scale_k3(const uint8_t* scales, int g) {
  const int low = scales[g % 8] >> g / 8 * 4 & 15;
  const int high = scales[8 + g % 4] >> g / 4 * 2 & 3;
  return (low | high << 4) - 32;
}

inline void decode(const BlockQ3_K& b, float* out) {
  const float d = half_to_float(b.d);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * float(scale_k3(b.scales, g));
    const uint8_t* qs = b.qs + g / 8 * 32 + g % 2 * 16;
    const uint8_t* hmask = b.hmask + g % 2 * 16;
    const int shift = g / 2 % 4 * 2, bit = g / 2;
    for (int i = 0; i < 16; ++i) {
      const int q = (qs[i] >> shift & 3) + (hmask[i] >> bit & 1) * 4 - 4;
      out[16 * g + i] = scale * float(q);
    }
  }
}

}  // namespace plumb
