// The rounded activations of one tile of tokens as the matrix kernels read them (docs/numerics.md, cpu/x8.h).
#pragma once

#include <cstring>

#include "cpu/kernels.h"

namespace plumb {
namespace {

// Where the results of a call go, from some token and row on.
struct Output {
  float* y;
  const float* residual;
  int64_t y_stride, residual_stride;

  Output at(int token, int row) const {
    return {y + token * y_stride + row, residual ? residual + token * residual_stride + row : nullptr,
            y_stride, residual_stride};
  }
  template <class V>
  void store(int token, int row, typename V::F sum) const {
    if (residual) sum = V::add(V::load(residual + token * residual_stride + row), sum);
    V::store(y + token * y_stride + row, sum);
  }
};
inline Output output_of(const MatmulArgs& a) { return {a.y, a.residual, a.y_stride, a.residual_stride}; }

inline int32_t four(const int8_t* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return x;
}

// The activations of one tile of tokens: arrays as in X8, `stride` tokens side by side.
struct TileView : X8 {
  int stride;
};
inline TileView tile_view(const X8& x, int columns, TokenTile t) {
  const int64_t first = t.first, windows = (columns + kWindow - 1) / kWindow;
  TileView v{x, t.count};
  v.high += first * columns;
  if (v.low) v.low += first * columns;
  v.scales += first * (columns / 32), v.sums += first * (columns / 32), v.starts += first * (columns / 32);
  v.starts16 += first * (columns / 16);
  if (!v.refined_at) return v;
  v.refined_at += first * windows, v.refined_codes += first * windows, v.refined_starts += first * windows;
  v.refined_scales += first * windows, v.refined_sums += first * windows;
  return v;
}

// Where an accumulator starts for codes of offset kStart, from what X8 keeps for kStartOffset: exact.
template <int kStart>
int32_t start_of(int32_t kept) {
  return kStart == 0 ? 0
                     : kept >> (kStart == 128  ? 0
                                : kStart == 32 ? 2
                                : kStart == 16 ? 3
                                : kStart == 8  ? 4
                                               : 5);
}
template <int kSub, int kStart>
int32_t block_start(const TileView& x, int block, int sub, int token) {
  return start_of<kStart>(kSub == 2 ? x.starts16[(2 * block + sub) * x.stride + token]
                                    : x.starts[block * x.stride + token]);
}

// s times the sum of the codes under one scale of the weights.
template <int kSub>
float block_sum(const TileView& x, int block, int sub, int token) {
  const int at = block * x.stride + token;
  if (kSub == 1) return x.sums[at];
  return x.scales[at] * float(x.starts16[(2 * block + sub) * x.stride + token] / -kStartOffset);
}

// 254 high + low.
template <class V>
typename V::I join_planes(typename V::I high, typename V::I low) {
  return V::addi(V::subi(V::template shl32<8>(high), V::template shl32<1>(high)), low);
}

}  // namespace
}  // namespace plumb
