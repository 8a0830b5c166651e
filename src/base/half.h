// IEEE half and bfloat16 to and from f32, in portable code: exact one way, round to nearest even the other.
#pragma once

#include <bit>
#include <cstdint>

namespace plumb {

/// The f32 with the value of half `h`; exact, subnormals included; NaN payloads are kept (made quiet).
inline float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 31u;
  const uint32_t mantissa = h & 1023u;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = float(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  if (exponent == 31)
    return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u));
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

/// `f` rounded to half, ties to even; overflow gives infinity.
inline uint16_t float_to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
  if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // 65520 and above
  if (magnitude < 0x38800000u) {                                  // below 2^-14: multiples of 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;
    const float rounded = (scaled + 0x1p23f) - 0x1p23f;  // nearest even integer, as scaled < 2^10
    return uint16_t(sign | uint16_t(rounded));
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return uint16_t(sign | ((rounded >> 13) - (112u << 10)));
}

/// half_to_float(float_to_half(f)) without branches, for loops.
inline float rounded_to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f), sign = bits & 0x80000000u, magnitude = bits ^ sign;
  const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u)) & ~0x1fffu;
  const float small = (std::bit_cast<float>(magnitude) + 0.5f) - 0.5f;  // multiples of 2^-24
  const uint32_t finite = magnitude < 0x38800000u ? std::bit_cast<uint32_t>(small) : normal;
  const uint32_t large = magnitude > 0x7f800000u ? (magnitude & ~0x1fffu) | 0x400000u : 0x7f800000u;
  return std::bit_cast<float>(sign | (magnitude >= 0x477ff000u ? large : finite));
}

inline float bfloat16_to_float(uint16_t b) { return std::bit_cast<float>(uint32_t(b) << 16); }

/// `f` rounded to bfloat16, ties to even; NaN stays NaN.
inline uint16_t float_to_bfloat16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t(bits >> 16 | 64u);
  return uint16_t((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace plumb
