// IQ2_XS: 256 weights in 74 bytes, 2.3125 bits each; 32 codewords of 8 weights, a scale for two codewords.
//
//   d       f16      scale of the scales
//   qs      32 u16   codeword k: bits 0..8 index kGridIQ2_XS, bits 9..15 are its sign code
//   scales  8 bytes  nibble g%2 of byte g/2 is the scale of group g of 16 weights
//
//   w = (d * (0.5 + scale[g]) * 0.25) * grid * sign
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq_grids.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ2_XS {
  static constexpr int kWeights = 256;
  uint16_t d;  // f16
  uint16_t qs[32];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_XS) == 74);

inline void decode(const BlockIQ2_XS& b, float* out) {
  const float d = half_to_float(b.d);
  for (int k = 0; k < 32; ++k, out += 8) {
    const int g = k / 2;
    const float scale = d * (0.5f + float(b.scales[g / 2] >> g % 2 * 4 & 15)) * 0.25f;
    const uint16_t codeword = kGridIQ2_XS[b.qs[k] & 511];
    const uint8_t signs = even_signs(unsigned(b.qs[k]) >> 9);
    for (int i = 0; i < 8; ++i) out[i] = with_sign(scale * float(grid_iq2(codeword, i)), signs, i);
  }
}

}  // namespace plumb
