// TQ1_0: 256 ternary weights in 54 bytes, 1.6875 bits each; five base-3 digits to a byte.
//
//   qs   48 bytes  bytes 0..31: digit n of byte i is weight 32*n + i (n < 5, weights 0..159);
//                  bytes 32..47: digit n of byte 32 + i is weight 160 + 16*n + i (weights 160..239)
//   qh   4 bytes   digit n of byte i is weight 240 + 4*n + i (n < 4)
//   d    f16       scale
//
//   w[i] = d * (digit[i] - 1)
//
// A byte v stands for the fraction v/256; its most significant digit is n = 0. Multiplying by 3^n mod 256
// drops n digits, multiplying that by 3 and taking the integer part yields the next one.
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockTQ1_0 {
  static constexpr int kWeights = 256;
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;  // f16
};
static_assert(sizeof(BlockTQ1_0) == 54);

/// Digit n (0..4) of a byte of five base-3 digits, as -1, 0 or 1.
inline int trit(uint8_t byte, int n) {
  constexpr uint8_t kPow3[5] = {1, 3, 9, 27, 81};
  return (uint8_t(byte * kPow3[n]) * 3 >> 8) - 1;
}

inline void decode(const BlockTQ1_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int n = 0; n < 5; ++n) {
    for (int i = 0; i < 32; ++i) out[32 * n + i] = d * float(trit(b.qs[i], n));
    for (int i = 0; i < 16; ++i) out[160 + 16 * n + i] = d * float(trit(b.qs[32 + i], n));
  }
  for (int n = 0; n < 4; ++n) {
    for (int i = 0; i < 4; ++i) out[240 + 4 * n + i] = d * float(trit(b.qh[i], n));
  }
}

}  // namespace plumb
