// IQ4_XS: 256 weights in 136 bytes, 4.25 bits each; 8 groups of 32 weights with the values of IQ4_NL.
//
//   d         f16        scale of the scales
//   scales_h  u16        bits 2j and 2j+1 are bits 4 and 5 of scale j
//   scales_l  4 bytes    nibble j%2 of byte j/2 is bits 0..3 of scale j
//   qs        128 bytes  weight 32*j + i: byte 16*j + i%16, low nibble when i < 16, else high nibble
//
//   w[32*j + i] = (d * (scale[j] - 32)) * kIq4Values[q[32*j + i]]
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq4_nl.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ4_XS {
  static constexpr int kWeights = 256;
  uint16_t d;  // f16
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};
static_assert(sizeof(BlockIQ4_XS) == 136);

/// Scale j (0..7), -32..31.
inline int scale_iq4_xs(const BlockIQ4_XS& b, int j) {
  const int low = b.scales_l[j / 2] >> j % 2 * 4 & 15;
  const int high = b.scales_h >> 2 * j & 3;
  return (low | high << 4) - 32;
}

inline void decode(const BlockIQ4_XS& b, float* out) {
  const float d = half_to_float(b.d);
  for (int j = 0; j < 8; ++j) {
    const float scale = d * float(scale_iq4_xs(b, j));
    const uint8_t* qs = b.qs + 16 * j;
    for (int i = 0; i < 16; ++i) {
      out[32 * j + i] = scale * float(kIq4Values[qs[i] & 15]);
      out[32 * j + i + 16] = scale * float(kIq4Values[qs[i] >> 4]);
    }
  }
}

}  // namespace plumb
