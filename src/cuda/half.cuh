// Weights and activations as halves (docs/numerics.md, `--act f16`).
#pragma once

#include "cuda/tile.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {

constexpr int kTileTokens = 128;  // of a tile of activations

/// Where activations of token t, columns 8 piece .. 8 piece + 7, lie in x16: tiles of 128 tokens x 64 columns as in shared memory.
__host__ __device__ inline int64_t x16_offset(int t, int piece, int columns) {
  const int64_t tile = int64_t(t / kTileTokens) * ((columns + kTileColumns - 1) / kTileColumns) + piece / 8;
  return tile * kTileTokens * kTileRowBytes + tile_offset(t % kTileTokens, piece % 8);
}

/// The same for a few tokens: by 8 tokens and 128 columns, as a lane's operands of an `mma` lie (few_own_linear.cu): 16 bytes of
/// columns 32 u + 8 piece on, u = lane % 4, piece = 0..3, of token lane / 4.
__host__ __device__ inline int64_t octet_offset(int t, int column, int columns) {
  const int64_t window = int64_t(t / 8) * ((columns + 127) / 128) + column / 128;
  return ((window * 4 + column % 32 / 8) * 32 + t % 8 * 4 + column % 128 / 32) * 16 + column % 8 * 2;
}

// Quantised weights are taken times 64, so that those down to 2^-20 are normal halves; up to 1,023 they are finite.
constexpr float kCodeScale = 64;

__device__ inline uint32_t bits(__half2 h) { return *reinterpret_cast<const uint32_t*>(&h); }
__device__ inline __half2 halves(uint32_t u) { return *reinterpret_cast<const __half2*>(&u); }

// What decodes a quantised unit, unit u of its row: weights RN(code s + m), code exact, s = RN(64 scale) and m = RN(64 min) halves.
template <int F>
struct HalfScales {
  __half2 s[F == kQ6_K ? 2 : 1], min;
  __device__ HalfScales(const Unit<F>& unit, int u) {
    if constexpr (F == kQ4_K || F == kQ5_K) {  // as halves at once: six bits and eleven, one rounding
      const uint32_t of = u % 4 * 0x1111, low = __byte_perm(unit.s.y, unit.s.z, of + 0x4400);  // a byte of scales, one of minima
      uint32_t both = low & 0x003f003fu;
      if (u / 4 % 2 == 1) {
        const uint32_t high = __byte_perm(unit.s.w, 0, of);
        both = (high & 0x0000000fu) | (high >> 4 & 0x000f0000u) | (low >> 2 & 0x00300030u);
      }
      const __half2 codes = __hsub2(halves(both | 0x64006400u), __float2half2_rn(1024.0f));
      const uint32_t product = bits(__hmul2(codes, __hmul2(halves(unit.s.x), __float2half2_rn(kCodeScale))));
      s[0] = halves(__byte_perm(product, 0, 0x1010)), min = halves(__byte_perm(product, 0, 0x3232) ^ 0x80008000u);
      return;
    }
    const float2 sm = unit.scale_min(u % 8);
    min = __float2half2_rn(sm.y * kCodeScale);
    if constexpr (F == kQ6_K) {
      for (int i = 0; i < 2; ++i) s[i] = __float2half2_rn(sm.x * float(unit.sub_scale(i)) * kCodeScale);
    } else {
      s[0] = __float2half2_rn(sm.x * kCodeScale);
    }
  }
  /// Weights 8 i .. 8 i + 7.
  __device__ uint4 piece(const Unit<F>& unit, int i) const {
    constexpr uint32_t kSign = F == kQ8_0 ? 0x80808080u : 0;
    const __half2 offset = __float2half2_rn(1024.0f + float(F == kQ8_0 ? 128 : Unit<F>::kOffset)), scale = s[F == kQ6_K ? i / 2 : 0];
    uint4 out;
#pragma unroll
    for (int k = 0; k < 4; ++k) {  // 0x6400 + code are the bits of 1024 + code
      const uint32_t c = unit.codes(2 * i + k / 2) ^ kSign;
      const __half2 code = __hsub2(halves(__byte_perm(c, 0x64646464u, k % 2 == 0 ? 0x4140 : 0x4342)), offset);
      (&out.x)[k] = bits(Unit<F>::kMin ? __hfma2(code, scale, min) : __hmul2(code, scale));
    }
    return out;
  }
};

/// The 32 weights of a quantised unit.
template <int F>
__device__ void decode_halves(const Unit<F>& unit, int u, uint4* out) {
  const HalfScales<F> scales(unit, u);
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = scales.piece(unit, i);
}

/// Eight weights of a float format from two units of F32, or one.
template <int F>
__device__ uint4 float_halves(const Unit<F>* unit) {
  uint4 out;
  uint32_t* to = &out.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    constexpr int kPer = Unit<F>::kWeights;
    const Unit<F>& from = unit[2 * i / kPer];
    if constexpr (F == kF16) {
      to[i] = (&from.q.x)[i];
    } else {
      to[i] = bits(__floats2half2_rn(from.value(2 * i % kPer), from.value(2 * i % kPer + 1)));
    }
  }
  return out;
}

}  // namespace plumb::cuda
