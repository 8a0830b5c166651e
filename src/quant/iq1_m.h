// IQ1_M: 256 weights in 56 bytes, 1.75 bits each; 32 codewords of 8 weights, a scale for two codewords.
//
//   qs      32 bytes  low 8 bits of the index of codeword k into kGridIQ1
//   qh      16 bytes  nibble k%2 of byte k/2: bits 0..2 are bits 8..10 of the index, bit 3 the sign of the
//   shift scales  4 u16     word j: bits 3n..3n+2 are the scale of group 4j + n of 16 weights; bits 12..15
//   are nibble j of
//                     the f16 scale d of the scales
//
//   w = (d * (2 * scale[g] + 1)) * (grid + shift), shift = bit ? -0.125 : 0.125
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq1_s.h"
#include "quant/iq_grids.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ1_M {
  static constexpr int kWeights = 256;
  uint8_t qs[32];
  uint8_t qh[16];
  uint16_t scales[4];
};
static_assert(sizeof(BlockIQ1_M) == 56);

/// The f16 bits of d, gathered from the top nibbles of the scales.
inline uint16_t d_iq1_m(const BlockIQ1_M& b) {
  return uint16_t(b.scales[0] >> 12 | (b.scales[1] >> 12) << 4 | (b.scales[2] >> 12) << 8 |
                  (b.scales[3] >> 12) << 12);
}

inline void decode(const BlockIQ1_M& b, float* out) {
  const float d = half_to_float(d_iq1_m(b));
  for (int k = 0; k < 32; ++k, out += 8) {
    const int g = k / 2;
    const float scale = d * float(2 * (b.scales[g / 4] >> g % 4 * 3 & 7) + 1);
    const int qh = b.qh[k / 2] >> k % 2 * 4 & 15;
    const float shift = qh & 8 ? -kIq1Shift : kIq1Shift;
    const uint16_t codeword = kGridIQ1[b.qs[k] | (qh & 7) << 8];
    for (int i = 0; i < 8; ++i) out[i] = scale * (float(grid_iq1(codeword, i)) + shift);
  }
}

}  // namespace plumb
