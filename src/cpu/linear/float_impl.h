// Matrices with weights in floating point (F32, F16, BF16) and the tiles that multiply them, for every
// instruction set V.
#pragma once

#include "cpu/linear/tile_view.h"

namespace plumb {
namespace {

// Weights in floating point: acc = fma(w, x, acc) over ascending columns. A group is [columns][16].
template <class V, Format kFormat>
typename V::F load_float(const uint8_t* g, int64_t k) {
  if constexpr (kFormat == Format::F16)
    return V::from_half(g + k * 32);
  else if constexpr (kFormat == Format::BF16)
    return V::from_bfloat16(g + k * 32);
  else
    return V::load(reinterpret_cast<const float*>(g + k * 64));
}

template <class V, Format kFormat, int M, int N>
void float_tile(const MatmulArgs& a, int group, int token) {
  using F = typename V::F;
  const uint8_t* g = a.packed + group * a.group_bytes;
  const float* x = a.x + token * a.x_stride;
  F acc[N][M];
  for (int j = 0; j < N; ++j) {
    for (int i = 0; i < M; ++i) acc[j][i] = V::zero();
  }
  for (int k = 0; k < a.columns; ++k) {
    F w[M];
    for (int i = 0; i < M; ++i) w[i] = load_float<V, kFormat>(g + i * a.group_bytes, k);
    for (int j = 0; j < N; ++j) {
      const F xj = V::set1(x[j * a.x_stride + k]);
      for (int i = 0; i < M; ++i) acc[j][i] = V::fma(w[i], xj, acc[j][i]);
    }
  }
  const Output out = output_of(a);
  for (int j = 0; j < N; ++j) {
    for (int i = 0; i < M; ++i) out.template store<V>(token + j, (group + i) * 16, acc[j][i]);
  }
}

template <class V, Format kFormat, int M, int N>
void float_tokens(const MatmulArgs& a, int group, int token) {
  if constexpr (N > 0) {
    for (; a.n - token >= N; token += N) float_tile<V, kFormat, M, N>(a, group, token);
    float_tokens<V, kFormat, M, N - 1>(a, group, token);
  }
}

template <class V, Format kFormat>
void matmul_floats(const MatmulArgs& a) noexcept {
  for (int g = 0; g < a.groups; g += 2) float_tokens<V, kFormat, 2, V::kTileTokens>(a, g, 0);
}

}  // namespace
}  // namespace plumb
