// IQ1_S: 256 weights in 50 bytes, 1.5625 bits each; 8 groups of 32 weights, a group is 4 codewords of 8
// weights.
//
//   d    f16       scale of the scales
//   qs   32 bytes  low 8 bits of the index of codeword k into kGridIQ1
//   qh   8 u16     group j: bits 3n..3n+2 are bits 8..10 of the index of its codeword n, bits 12..14 the
//   scale,
//                  bit 15 the sign of the shift
//
//   w = (d * (2 * scale[j] + 1)) * (grid + shift), shift = bit ? -0.125 : 0.125
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq_grids.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ1_S {
  static constexpr int kWeights = 256;
  uint16_t d;  // f16
  uint8_t qs[32];
  uint16_t qh[8];
};
static_assert(sizeof(BlockIQ1_S) == 50);

/// What IQ1_S and IQ1_M add to or subtract from every grid value of a group.
inline constexpr float kIq1Shift = 0.125f;

inline void decode(const BlockIQ1_S& b, float* out) {
  const float d = half_to_float(b.d);
  for (int j = 0; j < 8; ++j) {
    const int qh = b.qh[j];
    const float scale = d * float(2 * (qh >> 12 & 7) + 1);
    const float shift = qh & 0x8000 ? -kIq1Shift : kIq1Shift;
    for (int n = 0; n < 4; ++n, out += 8) {
      const uint16_t codeword = kGridIQ1[b.qs[4 * j + n] | (qh >> 3 * n & 7) << 8];
      for (int i = 0; i < 8; ++i) out[i] = scale * (float(grid_iq1(codeword, i)) + shift);
    }
  }
}

}  // namespace plumb
