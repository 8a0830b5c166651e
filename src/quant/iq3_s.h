// IQ3_S: 256 weights in 110 bytes, 3.4375 bits each; 8 groups of 32 weights, a group is 8 codewords of 4
// weights.
//
//   d       f16       scale of the scales
//   qs      64 bytes  low 8 bits of the index of codeword k into kGridIQ3_S
//   qh      8 bytes   bit k%8 of byte k/8 is bit 8 of the index
//   signs   32 bytes  bit i%8 of byte i/8 set: weight i is negative
//   scales  4 bytes   nibble j%2 of byte j/2 is the scale of group j
//
//   w = (d * (1 + 2 * scale[j])) * grid * sign
#pragma once

#include <cstdint>

#include "base/half.h"
#include "quant/iq_grids.h"

namespace plumb {

struct [[gnu::packed]] BlockIQ3_S {
  static constexpr int kWeights = 256;
  uint16_t d;  // f16
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t scales[4];
};
static_assert(sizeof(BlockIQ3_S) == 110);

inline void decode(const BlockIQ3_S& b, float* out) {
  const float d = half_to_float(b.d);
  for (int k = 0; k < 64; ++k, out += 4) {
    const int j = k / 8;
    const float scale = d * float(1 + 2 * (b.scales[j / 2] >> j % 2 * 4 & 15));
    const uint16_t codeword = kGridIQ3_S[b.qs[k] | (b.qh[j] >> k % 8 & 1) << 8];
    for (int i = 0; i < 4; ++i) {
      out[i] = with_sign(scale * float(kLevelsIq3S[grid_iq3(codeword, i)]), b.signs[k / 2], k % 2 * 4 + i);
    }
  }
}

}  // namespace plumb
