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
