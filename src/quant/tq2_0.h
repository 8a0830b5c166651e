// TQ2_0: 256 ternary weights in 66 bytes, 2.0625 bits each.
//
//   qs   64 bytes  weight i: byte i/128*32 + i%32, bits 2*(i/32%4) and above
//   d    f16       scale
//
//   w[i] = d * (q[i] - 1); writers store q in 0..2, and 3 decodes to 2 * d
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockTQ2_0 {
  static constexpr int kWeights = 256;
  uint8_t qs[64];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockTQ2_0) == 66);

inline void decode(const BlockTQ2_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int j = 0; j < 8; ++j) {
    const uint8_t* qs = b.qs + j / 4 * 32;
    const int shift = j % 4 * 2;
    for (int i = 0; i < 32; ++i) out[32 * j + i] = d * float((qs[i] >> shift & 3) - 1);
  }
}

}  // namespace plumb
