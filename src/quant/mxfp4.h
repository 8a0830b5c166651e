// MXFP4: 32 weights in 17 bytes, 4.25 bits each (OCP Microscaling Formats v1.0: E2M1 elements, one E8M0
// scale).
//
//   e    u8       exponent of the scale 2^(e - 127)
//   qs   16 bytes low nibble of byte i is weight i, high nibble is weight i + 16; sign, 2 bits exponent, 1
//   bit mantissa
//
//   w[i] = 2^(e - 128) * kMxfp4Values[q[i]]
//
// The table holds twice the E2M1 values, so that they are integers; hence the half scale. GGUF gives e = 255
// (NaN in the OCP text) no special meaning: it is 2^127. A negative zero element decodes to zero times the
// scale, so +0.
#pragma once

#include <bit>
#include <cstdint>

namespace plumb {

/// Twice the values of E2M1.
inline constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

struct [[gnu::packed]] BlockMXFP4 {
  static constexpr int kWeights = 32;
  uint8_t e;
  uint8_t qs[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

/// 2^(e - 128): half of the E8M0 scale; subnormal for e below 2.
inline float half_scale_e8m0(uint8_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23);
}

inline void decode(const BlockMXFP4& b, float* out) {
  const float d = half_scale_e8m0(b.e);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * float(kMxfp4Values[b.qs[i] & 15]);
    out[i + 16] = d * float(kMxfp4Values[b.qs[i] >> 4]);
  }
}

}  // namespace plumb
