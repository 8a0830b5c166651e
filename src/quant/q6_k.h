// Q6_K: 256 weights in 210 bytes, 6.5625 bits each; 16 groups of 16 weights.
//
//   ql      128 bytes  low nibble of weight i: byte i/128*64 + i%64, low nibble when i/64 is even, else high
//   nibble qh      64 bytes   bits 4 and 5 of weight i: byte i/128*32 + i%32, bits 2*(i/32%4) and above
//   scales  16 int8    scale of group g
//   d       f16        scale of the scales
//
//   w[i] = (d * scales[g]) * (q[i] - 32), g = i/16, q in 0..63
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockQ6_K {
  static constexpr int kWeights = 256;
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockQ6_K) == 210);

inline void decode(const BlockQ6_K& b, float* out) {
  const float d = half_to_float(b.d);
  for (int g = 0; g < 16; ++g) {
    const float scale = d * float(b.scales[g]);
    const uint8_t* ql = b.ql + g / 8 * 64 + g % 4 * 16;
    const uint8_t* qh = b.qh + g / 8 * 32 + g % 2 * 16;
    const int ql_shift = g / 4 % 2 * 4, qh_shift = g / 2 % 4 * 2;
    for (int i = 0; i < 16; ++i) {
      const int q = (ql[i] >> ql_shift & 15) | (qh[i] >> qh_shift & 3) << 4;
      out[16 * g + i] = scale * float(q - 32);
    }
  }
}

}  // namespace plumb
