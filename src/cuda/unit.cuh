// A unit of 16 bytes of codes, 32 weights of a quantised row (8 of F16 and BF16, 4 of F32): loading it, its product with
// activations, and its decoding to f32 as quant/ does it, operation for operation.
//
// Products are those of docs/numerics.md: I, an exact integer over the block; acc = fma(float(I), w s, acc); with a minimum
// then acc = fma(m, t, acc).
#pragma once

#include <cuda_fp16.h>

#include "cuda/api.h"

namespace plumb::cuda {

struct BlockScale {  // of 32 activations
  float s;
  int low, high;  // sums of the codes of elements 0..15 and 16..31
  float t;        // s * (low + high)
};

// Activations of one row in shared memory: int8 in three planes, or floats in planes that a warp reads without conflicts.
struct Activation {
  const uint4 *low, *high;
  const BlockScale* scale;
  const float4 *even, *odd;
};

__device__ inline uint4 stream16(const void* p) { return __ldcs(static_cast<const uint4*>(p)); }
__device__ inline float half_bits(uint32_t h) { return __half2float(__ushort_as_half(static_cast<unsigned short>(h))); }

template <int F>
struct Unit {
  static constexpr int kWeights = F == kF32 ? 4 : F == kF16 || F == kBF16 ? 8 : 32;
  static constexpr bool kSuper = F == kQ4_K || F == kQ5_K || F == kQ6_K;
  static constexpr bool kFive = F == kQ5_0 || F == kQ5_1 || F == kQ5_K;
  static constexpr bool kMin = F == kQ4_1 || F == kQ5_1 || F == kQ4_K || F == kQ5_K;
  static constexpr int kOffset = F == kQ4_0 ? 8 : F == kQ5_0 ? 16 : F == kQ6_K ? 32 : 0;

  uint4 q, q2;
  uint2 h;
  uint4 s;

  /// i: index of the unit in the matrix.
  __device__ void load(const Matrix& m, int64_t i) {
    if constexpr (F == kQ8_0) {
      q = stream16(m.q + i * 32), q2 = stream16(m.q + i * 32 + 16);
    } else {
      q = stream16(m.q + i * 16);
    }
    if constexpr (kFive) h.x = __ldcs(reinterpret_cast<const uint32_t*>(m.h) + i);
    if constexpr (F == kQ6_K) h = __ldcs(reinterpret_cast<const uint2*>(m.h) + i);
    if constexpr (F == kQ4_0 || F == kQ5_0 || F == kQ8_0) s.x = __ldg(reinterpret_cast<const uint16_t*>(m.s) + i);
    if constexpr (F == kQ4_1 || F == kQ5_1) s.x = __ldg(reinterpret_cast<const uint32_t*>(m.s) + i);
    if constexpr (F == kQ4_K || F == kQ5_K) s = __ldg(reinterpret_cast<const uint4*>(m.s) + i / 8);
    if constexpr (F == kQ6_K) {
      s.x = __ldg(reinterpret_cast<const uint16_t*>(m.s) + i);
      s.y = __ldg(reinterpret_cast<const uint16_t*>(m.d) + i / 8);
    }
  }

  /// Codes of elements 4 w .. 4 w + 3 as bytes, w = 0..7; Q8_0: signed.
  __device__ uint32_t codes(int w) const {
    const uint32_t* p = &q.x;
    if constexpr (F == kQ8_0) return w < 4 ? p[w] : (&q2.x)[w - 4];
    uint32_t c = (w < 4 ? p[w] : p[w - 4] >> 4) & 0x0f0f0f0fu;
    if constexpr (kFive) c |= (h.x >> w & 0x01010101u) << 4;
    if constexpr (F == kQ6_K) c |= ((w < 4 ? h.x >> 2 * w : h.y >> (2 * w - 8)) & 0x03030303u) << 4;
    return c;
  }

  /// Scale and minimum of unit j of its superblock, as decoding uses them: value = scale * code + min.
  __device__ float2 scale_min(int j) const {
    if constexpr (F == kQ4_K || F == kQ5_K) {
      const auto byte = [&](int i) { return (i < 4 ? s.y >> 8 * i : i < 8 ? s.z >> (8 * i - 32) : s.w >> (8 * i - 64)) & 255u; };
      const uint32_t scale = j < 4 ? byte(j) & 63 : (byte(j + 4) & 15) | byte(j - 4) >> 6 << 4;
      const uint32_t min = j < 4 ? byte(j + 4) & 63 : byte(j + 4) >> 4 | byte(j) >> 6 << 4;
      return {half_bits(s.x & 0xffff) * float(scale), -(half_bits(s.x >> 16) * float(min))};
    }
    if constexpr (F == kQ6_K) return {half_bits(s.y), 0};
    return {half_bits(s.x & 0xffff), kMin ? half_bits(s.x >> 16) : 0.0f};
  }
  __device__ int sub_scale(int half) const { return int(int8_t(s.x >> 8 * half)); }

  /// acc + the product of this unit, unit u of its row, with the activations.
  __device__ float dot(float acc, const Activation& a, int u) const {
    if constexpr (kWeights == 32) {
      const uint4 low = a.low[u], high = a.high[u];
      const BlockScale b = a.scale[u];
      int i0 = 0, i1 = 0;
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        i0 = __dp4a(int(codes(w)), int((&low.x)[w]), i0);
        i1 = __dp4a(int(codes(w + 4)), int((&high.x)[w]), i1);
      }
      i0 -= kOffset * b.low, i1 -= kOffset * b.high;
      const int sum = F == kQ6_K ? sub_scale(0) * i0 + sub_scale(1) * i1 : i0 + i1;
      const float2 sm = scale_min(u % 8);
      acc = fmaf(float(sum), sm.x * b.s, acc);
      return kMin ? fmaf(sm.y, b.t, acc) : acc;
    } else {
      const float4 x = a.even[u];
      const uint32_t* p = &q.x;
      if constexpr (F == kF32) {
        acc = fmaf(__uint_as_float(p[0]), x.x, acc), acc = fmaf(__uint_as_float(p[1]), x.y, acc);
        acc = fmaf(__uint_as_float(p[2]), x.z, acc);
        return fmaf(__uint_as_float(p[3]), x.w, acc);
      } else {
        const float4 y = a.odd[u];
        acc = fmaf(value(0), x.x, acc), acc = fmaf(value(1), x.y, acc), acc = fmaf(value(2), x.z, acc);
        acc = fmaf(value(3), x.w, acc), acc = fmaf(value(4), y.x, acc), acc = fmaf(value(5), y.y, acc);
        acc = fmaf(value(6), y.z, acc);
        return fmaf(value(7), y.w, acc);
      }
    }
  }

  /// Element e of a float format.
  __device__ float value(int e) const {
    const uint32_t* p = &q.x;
    if constexpr (F == kF32) return __uint_as_float(p[e]);
    const uint32_t word = p[e / 2] >> 16 * (e % 2) & 0xffff;
    return F == kF16 ? half_bits(word) : __uint_as_float(word << 16);
  }

  /// Calls put(element, value) for all weights; u: unit of its row.
  template <class Put>
  __device__ void decode(int u, Put put) const {
    if constexpr (kWeights == 32) {
      const float2 sm = scale_min(u % 8);
#pragma unroll
      for (int w = 0; w < 8; ++w) {
        const uint32_t c = codes(w);
        const float scale = F == kQ6_K ? sm.x * float(sub_scale(w / 4)) : sm.x;
#pragma unroll
        for (int b = 0; b < 4; ++b) {
          const int code = F == kQ8_0 ? int(int8_t(c >> 8 * b)) : int(c >> 8 * b & 255u) - kOffset;
          const float v = scale * float(code);
          put(4 * w + b, kMin ? v + sm.y : v);
        }
      }
    } else {
#pragma unroll
      for (int e = 0; e < kWeights; ++e) put(e, value(e));
    }
  }
};

/// Calls f with the format as a compile-time constant.
template <class Call>
void with_format(int format, Call f) {
  switch (format) {
    case kF32: return f(std::integral_constant<int, kF32>());
    case kF16: return f(std::integral_constant<int, kF16>());
    case kBF16: return f(std::integral_constant<int, kBF16>());
    case kQ4_0: return f(std::integral_constant<int, kQ4_0>());
    case kQ4_1: return f(std::integral_constant<int, kQ4_1>());
    case kQ5_0: return f(std::integral_constant<int, kQ5_0>());
    case kQ5_1: return f(std::integral_constant<int, kQ5_1>());
    case kQ8_0: return f(std::integral_constant<int, kQ8_0>());
    case kQ4_K: return f(std::integral_constant<int, kQ4_K>());
    case kQ5_K: return f(std::integral_constant<int, kQ5_K>());
    default: return f(std::integral_constant<int, kQ6_K>());
  }
}

}  // namespace plumb::cuda
