// Halves for on_cpu/cuda_runtime.h.
#pragma once

#include "cuda/on_cpu/cuda_runtime.h"

struct __half {
  uint16_t bits;
  __half() = default;
  explicit __half(float f) : bits(plumb::float_to_half(f)) {}
};
struct __half2 {
  __half x, y;
};
inline float __half2float(__half h) { return plumb::half_to_float(h.bits); }
inline __half __float2half_rn(float f) { return __half(f); }
inline __half __ushort_as_half(unsigned short u) {
  __half h(0.0f);
  h.bits = u;
  return h;
}
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline float2 __half22float2(__half2 h) { return {__half2float(h.x), __half2float(h.y)}; }

inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = uint64_t(b) << 32 | a;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= uint32_t(both >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
  return out;
}
inline __half2 __floats2half2_rn(float a, float b) { return {__half(a), __half(b)}; }
inline __half2 __float2half2_rn(float a) { return {__half(a), __half(a)}; }
inline __half2 __hsub2(__half2 a, __half2 b) {
  return __floats2half2_rn(__half2float(a.x) - __half2float(b.x), __half2float(a.y) - __half2float(b.y));
}
inline __half2 __hmul2(__half2 a, __half2 b) {
  return __floats2half2_rn(__half2float(a.x) * __half2float(b.x), __half2float(a.y) * __half2float(b.y));
}
/// Rounds twice in rare cases, where CUDA's rounds once.
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return __floats2half2_rn(std::fma(__half2float(a.x), __half2float(b.x), __half2float(c.x)),
                           std::fma(__half2float(a.y), __half2float(b.y), __half2float(c.y)));
}
