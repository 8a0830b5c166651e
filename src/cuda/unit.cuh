// A unit of 16 bytes of codes, 32 weights of a quantised row (8 of F16 and BF16, 4 of F32): loading it, its product with
// activations, and its decoding to f32 as quant/ does it, operation for operation.
//
// Products are those of docs/numerics.md: I, an exact integer over the block; acc = fma(float(I), w s, acc); with a minimum
// then acc = fma(m, t, acc). Here each is a pair (float(I), w s) or (m, t), to be added by whoever has all pairs of a row.
#pragma once

#include <cuda_fp16.h>

#include "cuda/api.h"
#include "cuda/rounding.cuh"
#include "cuda/tensor.cuh"

namespace plumb::cuda {

// Rounded activations of one row in shared memory.
struct Activation {
  const uint4 *high, *low;  // codes, two uint4 per unit: of 8 bits, or both planes of 16
  const BlockScale* scale;
  const Refined* refined;  // null without refinement
};

__device__ inline uint4 stream16(const void* p) { return __ldcs(static_cast<const uint4*>(p)); }
__device__ inline float half_bits(uint32_t h) { return __half2float(__ushort_as_half(static_cast<unsigned short>(h))); }

__host__ __device__ constexpr bool quantised(int format) { return format != kF32 && format != kF16 && format != kBF16; }

template <int F>
struct Unit {
  static constexpr int kWeights = F == kF32 ? 4 : F == kF16 || F == kBF16 ? 8 : 32;
  static constexpr bool kSuper = F == kQ4_K || F == kQ5_K || F == kQ6_K;
  static constexpr bool kFive = F == kQ5_0 || F == kQ5_1 || F == kQ5_K;
  static constexpr bool kMin = F == kQ4_1 || F == kQ5_1 || F == kQ4_K || F == kQ5_K;
  static constexpr int kOffset = F == kQ4_0 ? 8 : F == kQ5_0 ? 16 : F == kQ6_K ? 32 : 0;

  static constexpr int kStep = F == kF16 ? 4 * kTileRows * 8 : 32;  // of a float format: from a unit to the 32nd behind it

  uint4 q, q2;
  uint2 h;
  uint4 s;

  /// Unit u of a row.
  __device__ void load(const Matrix& m, int row, int u) {
    load_codes(m, row, u);
    load_super(m, row, u);
  }

  /// Number of unit u of a row in its planes; that of unit u + 1 is kRowGroup more.
  __device__ static int64_t index(const Matrix& m, int row, int u) {
    const int units = m.columns / kWeights;
    if constexpr (F == kF16) {  // tile_offset of tile.cuh, in units
      return (int64_t(row / kTileRows) * ((units + 7) / 8) + u / 8) * kTileRows * 8 + row % kTileRows * 8 + ((u ^ row) & 7);
    }
    return kWeights == 32 ? (int64_t(row / kRowGroup) * units + u) * kRowGroup + row % kRowGroup : int64_t(row) * units + u;
  }

  __device__ void load_codes(const Matrix& m, int row, int u) { load_codes(m, index(m, row, u)); }
  __device__ void load_codes(const Matrix& m, int64_t i) {
    if constexpr (F == kQ8_0) {
      q = stream16(m.q + i * 32), q2 = stream16(m.q + i * 32 + 16);
    } else {
      q = stream16(m.q + i * 16);
    }
    if constexpr (kFive) h.x = __ldcs(reinterpret_cast<const uint32_t*>(m.h) + i);
    if constexpr (F == kQ6_K) h = __ldcs(reinterpret_cast<const uint2*>(m.h) + i);
    if constexpr (F == kQ4_0 || F == kQ5_0 || F == kQ8_0 || F == kQ6_K) s.x = __ldg(reinterpret_cast<const uint16_t*>(m.s) + i);
    if constexpr (F == kQ4_1 || F == kQ5_1) s.x = __ldg(reinterpret_cast<const uint32_t*>(m.s) + i);
  }

  // Pieces of 16 bytes that hold a unit and what scales it, in shared memory.
  static constexpr int kPieces = !quantised(F) ? 1 : F == kQ8_0 || F == kQ5_K ? 3 : 2;

  /// Starts copies of unit u of a row to pieces `step` apart; zeros where not valid.
  __device__ static void copy(const Matrix& m, int row, int u, bool valid, uint4* to, int step) {
    const int64_t i = valid ? index(m, row, u) : 0;
    copy16(to, m.q + i * (F == kQ8_0 ? 32 : 16), valid);
    if constexpr (!quantised(F)) return;
    if constexpr (F == kQ8_0) copy16(to + step, m.q + i * 32 + 16, valid);
    const int64_t super = kSuper && valid ? (int64_t(row / kRowGroup) * (m.columns / 256) + u / 8) * kRowGroup + row % kRowGroup : 0;
    uint32_t* rest = &to[(kPieces - 1) * step].x;
    if constexpr (F == kQ4_K || F == kQ5_K) copy16(to + step, m.s + super * 16, valid);
    if constexpr (kFive) copy4(rest, m.h + i * 4, valid);
    if constexpr (F == kQ6_K) copy8(rest, m.h + i * 8, valid), copy4(rest + 3, m.d + super / 2 * 4, valid);
    if constexpr (F == kQ4_1 || F == kQ5_1) copy4(rest + 2, m.s + i * 4, valid);
    if constexpr (F == kQ4_0 || F == kQ5_0 || F == kQ8_0 || F == kQ6_K) copy4(rest + 2, m.s + i / 2 * 4, valid);
  }
  /// The unit from its pieces.
  __device__ void take(int row, const uint4* from, int step) {
    q = from[0];
    if constexpr (!quantised(F)) return;
    const uint4 rest = from[(kPieces - 1) * step];
    const auto half_of = [&](uint32_t word) { return row % 2 ? word >> 16 : word & 0xffffu; };
    if constexpr (F == kQ8_0) q2 = from[step];
    if constexpr (F == kQ4_K || F == kQ5_K) s = from[step];
    if constexpr (kFive) h.x = rest.x;
    if constexpr (F == kQ6_K) h = {rest.x, rest.y}, s.y = half_of(rest.w);
    if constexpr (F == kQ4_1 || F == kQ5_1) s.x = rest.z;
    if constexpr (F == kQ4_0 || F == kQ5_0 || F == kQ8_0 || F == kQ6_K) s.x = half_of(rest.z);
  }

  /// What the eight units of a superblock share.
  __device__ void load_super(const Matrix& m, int row, int u) {
    load_super(m, (int64_t(row / kRowGroup) * (m.columns / 256) + u / 8) * kRowGroup + row % kRowGroup);
  }
  __device__ void load_super(const Matrix& m, int64_t i) {
    if constexpr (!kSuper) return;
    if constexpr (F == kQ4_K || F == kQ5_K) s = __ldg(reinterpret_cast<const uint4*>(m.s) + i);
    if constexpr (F == kQ6_K) s.y = __ldg(reinterpret_cast<const uint16_t*>(m.d) + i);
  }
  __device__ void take_super(const Unit& from) {
    if constexpr (F == kQ4_K || F == kQ5_K) s = from.s;
    if constexpr (F == kQ6_K) s.y = from.s.y;
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

  /// codes(word), or, of the second half, codes(word + 4), where q.x, and q2.x, is that word.
  __device__ uint32_t codes_of_word(int word, int half) const {
    if constexpr (F == kQ8_0) return half == 0 ? q.x : q2.x;
    uint32_t c = (half == 0 ? q.x : q.x >> 4) & 0x0f0f0f0fu;
    if constexpr (kFive) c |= (h.x >> (word + 4 * half) & 0x01010101u) << 4;
    if constexpr (F == kQ6_K) c |= ((half == 0 ? h.x : h.y) >> 2 * word & 0x03030303u) << 4;
    return c;
  }

  /// Scales and minima of four units of a superblock of Q4_K or Q5_K, the first half or the second, a byte each.
  __device__ void super_bytes(int half, uint32_t& scales, uint32_t& mins) const {
    scales = half == 0 ? s.y & 0x3f3f3f3fu : (s.w & 0x0f0f0f0fu) | (s.y >> 2 & 0x30303030u);
    mins = half == 0 ? s.z & 0x3f3f3f3fu : (s.w >> 4 & 0x0f0f0f0fu) | (s.z >> 2 & 0x30303030u);
  }
  /// Scale and minimum of unit j of its superblock, as decoding uses them: value = scale * code + min.
  __device__ float2 scale_min(int j) const {
    if constexpr (F == kQ4_K || F == kQ5_K) {
      uint32_t scales = 0, mins = 0;
      super_bytes(j / 4, scales, mins);
      const uint32_t scale = scales >> j % 4 * 8 & 255u, min = mins >> j % 4 * 8 & 255u;
      return {half_bits(s.x & 0xffff) * float(scale), -(half_bits(s.x >> 16) * float(min))};
    }
    if constexpr (F == kQ6_K) return {half_bits(s.y), 0};
    return {half_bits(s.x & 0xffff), kMin ? half_bits(s.x >> 16) : 0.0f};
  }
  __device__ int sub_scale(int half) const { return int(int8_t(s.x >> 8 * half)); }

  static constexpr int kPairs = F == kQ6_K || kMin ? 2 : 1, kRefinedPairs = kMin ? 2 : 1;

  /// The pairs of this unit, unit u of its row and `of_super` of its superblock, with the activations, `step` apart; those of the window's refined columns if they
  /// are here.
  template <bool kWide>
  __device__ void multiply(const Activation& a, int u, float2* out, float2* of_refined, int step) const {
    multiply<kWide>(a, u, u % 8, out, of_refined, step);
  }
  template <bool kWide>
  __device__ void multiply(const Activation& a, int u, int of_super, float2* out, float2* of_refined, int step) const {
    const BlockScale b = a.scale[u];
    int i0 = 0, i1 = 0;
    add_codes(a.high[2 * u], a.high[2 * u + 1], i0, i1);
    if constexpr (kWide) {
      i0 *= 254, i1 *= 254;
      add_codes(a.low[2 * u], a.low[2 * u + 1], i0, i1);
    }
    const float2 sm = scale_min(of_super);
    if constexpr (F == kQ6_K) {
      i0 -= kOffset * b.low, i1 -= kOffset * b.high;
      out[0] = {float(i0), sm.x * float(sub_scale(0)) * b.s};
      out[step] = {float(i1), sm.x * float(sub_scale(1)) * b.s};
    } else {
      i0 += i1;
      if (kOffset != 0) i0 -= kOffset * (b.low + b.high);
      out[0] = {float(i0), sm.x * b.s};
      if constexpr (kMin) out[step] = {sm.y, b.t};
    }
    if (kWide || !a.refined) return;
    const Refined r = a.refined[u / 4];
    if (r.at / 8 != u % 4) return;
    int i = 0;
#pragma unroll
    for (int w = 0; w < 8; ++w) {
      const int x = r.at % 8 == w ? int(r.codes) : 0;
      i = __dp4a(int(codes(w)), x, i);
    }
    if (kOffset != 0) i -= kOffset * __dp4a(0x01010101, int(r.codes), 0);
    const float scale = F == kQ6_K ? sm.x * float(sub_scale(r.at % 8 / 4)) : sm.x;
    of_refined[0] = {float(i), scale * r.s};
    if constexpr (kMin) of_refined[step] = {sm.y, r.t};
  }

  __device__ void add_codes(const uint4& first, const uint4& second, int& i0, int& i1) const {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      i0 = __dp4a(int(codes(w)), int((&first.x)[w]), i0);
      i1 = __dp4a(int(codes(w + 4)), int((&second.x)[w]), i1);
    }
  }

  /// acc + the product of this unit of a float format with the activations at x and, of its second half, y.
  __device__ float dot(float acc, float4 x, float4 y) const {
    acc = fmaf(value(0), x.x, acc), acc = fmaf(value(1), x.y, acc), acc = fmaf(value(2), x.z, acc);
    acc = fmaf(value(3), x.w, acc);
    if constexpr (F == kF32) return acc;
    acc = fmaf(value(4), y.x, acc), acc = fmaf(value(5), y.y, acc), acc = fmaf(value(6), y.z, acc);
    return fmaf(value(7), y.w, acc);
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
void with_float_format(int format, Call f) {
  switch (format) {
    case kF32: return f(std::integral_constant<int, kF32>());
    case kF16: return f(std::integral_constant<int, kF16>());
    default: return f(std::integral_constant<int, kBF16>());
  }
}
template <class Call>
void with_code_format(int format, Call f) {
  switch (format) {
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
template <class Call>
void with_format(int format, Call f) {
  quantised(format) ? with_code_format(format, f) : with_float_format(format, f);
}

}  // namespace plumb::cuda
