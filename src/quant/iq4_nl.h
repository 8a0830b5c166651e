// IQ4_NL: 32 weights in 18 bytes, 4.5 bits each; as Q4_0, but the nibble indexes a table of unevenly spaced
// values.
//
//   d    f16      scale
//   qs   16 bytes low nibble of byte i is weight i, high nibble is weight i + 16
//
//   w[i] = d * kIq4Values[q[i]]
#pragma once

#include <cstdint>

#include "base/half.h"

namespace plumb {

/// The 16 values of IQ4_NL and IQ4_XS.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

struct [[gnu::packed]] BlockIQ4_NL {
  static constexpr int kWeights = 32;
  uint16_t d;  // f16
  uint8_t qs[16];
};
static_assert(sizeof(BlockIQ4_NL) == 18);

inline void decode(const BlockIQ4_NL& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float(kIq4Values[b.qs[i] & 15]);
    out[i + 16] = d * float(kIq4Values[b.qs[i] >> 4]);
  }
}

}  // namespace plumb
