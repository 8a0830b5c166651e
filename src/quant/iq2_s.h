// IQ2_S: 256 weights in 82 bytes, 2.5625 bits each; 32 codewords of 8 weights, a scale for two codewords.
//
//   d       f16       scale of the scales
//   qs      32 bytes  low 8 bits of the index of codeword k into kGridIQ2_S
//   signs   32 bytes  signs of codeword k, bit set means negative (in the C struct: the second half of qs)
//   qh      8 bytes   bits 2*(k%4) and 2*(k%4)+1 of byte k/4 are bits 8 and 9 of the index
//   scales  8 bytes   nibble g%2 of byte g/2 is the scale of group g of 16 weights
//
//   w = (d * (0.5 + scale[g]) * 0.25) * grid * sign
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq_grids.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ2_S {
  static constexpr int kWeights = 256;
  uint16_t d;  // f16
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t scales[8];
};
static_assert(sizeof(BlockIQ2_S) == 82);

inline void decode(const BlockIQ2_S& b, float* out) {
  const float d = half_to_float(b.d);
  for (int k = 0; k < 32; ++k, out += 8) {
    const int g = k / 2;
    const float scale = d * (0.5f + float(b.scales[g / 2] >> g % 2 * 4 & 15)) * 0.25f;
    const uint16_t codeword = kGridIQ2_S[b.qs[k] | (b.qh[k / 4] >> k % 4 * 2 & 3) << 8];
    for (int i = 0; i < 8; ++i) out[i] = with_sign(scale * float(grid_iq2(codeword, i)), b.signs[k], i);
  }
}

}  // namespace plumb
