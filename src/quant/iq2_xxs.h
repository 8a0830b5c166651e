// IQ2_XXS: 256 weights in 66 bytes, 2.0625 bits each; 8 groups of 32 weights, a group is 4 codewords of 8
// weights.
//
//   d    f16     scale of the scales
//   qs   32 u16  group j in words 4j..4j+3, as 8 little-endian bytes: bytes 0..3 index kGridIQ2_XXS;
//   bytes 4..7 are a
//                32-bit word whose bits 7k..7k+6 are the sign code of codeword k and whose bits 28..31 are
//                the scale
//
//   w = (d * (0.5 + scale[j]) * 0.25) * grid * sign
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq_grids.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ2_XXS {
  static constexpr int kWeights = 256;
  uint16_t d;  // f16
  uint16_t qs[32];
};
static_assert(sizeof(BlockIQ2_XXS) == 66);

inline void decode(const BlockIQ2_XXS& b, float* out) {
  const float d = half_to_float(b.d);
  for (int j = 0; j < 8; ++j) {
    const uint32_t indices = uint32_t(b.qs[4 * j]) | uint32_t(b.qs[4 * j + 1]) << 16;
    const uint32_t word = uint32_t(b.qs[4 * j + 2]) | uint32_t(b.qs[4 * j + 3]) << 16;
    const float scale = d * (0.5f + float(word >> 28)) * 0.25f;
    for (int k = 0; k < 4; ++k, out += 8) {
      const uint16_t codeword = kGridIQ2_XXS[indices >> 8 * k & 255];
      const uint8_t signs = even_signs(word >> 7 * k & 127);
      for (int i = 0; i < 8; ++i) out[i] = with_sign(scale * float(grid_iq2(codeword, i)), signs, i);
    }
  }
}

}  // namespace plumb
