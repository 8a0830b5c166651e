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

// Quantised weights are taken times 64, so that those down to 2^-20 are normal halves; up to 1,023 they are finite.
constexpr float kCodeScale = 64;

__device__ inline uint32_t bits(__half2 h) { return *reinterpret_cast<const uint32_t*>(&h); }
__device__ inline __half2 halves(uint32_t u) { return *reinterpret_cast<const __half2*>(&u); }

/// The 32 weights of a quantised unit, unit u of its row: RN(code s + m), code exact, s = RN(64 scale) and m = RN(64 min) halves.
template <int F>
__device__ void decode_halves(const Unit<F>& unit, int u, uint4* out) {
  constexpr uint32_t kSign = F == kQ8_0 ? 0x80808080u : 0;
  const __half2 offset = __float2half2_rn(1024.0f + float(F == kQ8_0 ? 128 : Unit<F>::kOffset));
  const float2 sm = unit.scale_min(u % 8);
  const __half2 min = __float2half2_rn(sm.y * kCodeScale);
  uint32_t* to = &out[0].x;
#pragma unroll
  for (int w = 0; w < 8; ++w) {
    const float scale = F == kQ6_K ? sm.x * float(unit.sub_scale(w / 4)) : sm.x;
    const __half2 s = __float2half2_rn(scale * kCodeScale);
    const uint32_t c = unit.codes(w) ^ kSign;
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // 0x6400 + code are the bits of 1024 + code
      const __half2 code = __hsub2(halves(__byte_perm(c, 0x64646464u, i == 0 ? 0x4140 : 0x4342)), offset);
      to[2 * w + i] = bits(Unit<F>::kMin ? __hfma2(code, s, min) : __hmul2(code, s));
    }
  }
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
