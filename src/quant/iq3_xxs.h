// IQ3_XXS: 256 weights in 98 bytes, 3.0625 bits each; 8 groups of 32 weights, a group is 8 codewords of 4
// weights.
//
//   d      f16       scale of the scales
//   qs     64 bytes  index of codeword k into kGridIQ3_XXS
//   signs  32 bytes  group j is a little-endian 32-bit word: bits 7k..7k+6 are the sign code of its weights
//                    8k..8k+7, bits 28..31 the scale (in the C struct: the last 32 bytes of qs)
//
//   w = (d * (0.5 + scale[j]) * 0.5) * grid * sign
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq_grids.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ3_XXS {
  static constexpr int kWeights = 256;
  uint16_t d;  // f16
  uint8_t qs[64];
  uint32_t signs[8];
};
static_assert(sizeof(BlockIQ3_XXS) == 98);

inline void decode(const BlockIQ3_XXS& b, float* out) {
  const float d = half_to_float(b.d);
  for (int j = 0; j < 8; ++j) {
    const uint32_t word = b.signs[j];
    const float scale = d * (0.5f + float(word >> 28)) * 0.5f;
    for (int k = 0; k < 8; ++k, out += 4) {
      const uint16_t codeword = kGridIQ3_XXS[b.qs[8 * j + k]];
      const uint8_t signs = even_signs(word >> k / 2 * 7 & 127);
      for (int i = 0; i < 4; ++i) {
        out[i] = with_sign(scale * float(kLevelsIq3Xxs[grid_iq3(codeword, i)]), signs, k % 2 * 4 + i);
      }
    }
  }
}

}  // namespace plumb
