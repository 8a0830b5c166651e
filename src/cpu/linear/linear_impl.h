// Matrix times activations, for every format, any number of tokens and every instruction set V, in one order
// of addition:
//
//   for each block of 32 columns, ascending, and each of its scales:
//     I = 254 sum (code - offset) high + sum (code - offset) low     exact in int32, so its own order is free
//     acc = fma(float(I), w * s, acc)            w, s: scales of weights and activations
//     acc = fma(min, s * float(sum x), acc)      formats with a min
//
// An output is one lane of one accumulator, so few and many tokens, packed codes and unpacked panels give the
// same bits.
#pragma once

#include "cpu/kernels.h"
#include "cpu/linear/packed.h"
#include "cpu/linear/packed_k.h"

namespace plumb {
namespace {

inline int32_t four(const int8_t* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return x;
}

// The activations of one tile of tokens.
struct TileView {
  const int8_t *high, *low;  // [columns / 4][stride][4]
  const float* scales;       // [columns / 32][stride]
  const int32_t* sums;       // [columns / 16][stride]
  int stride;                // tokens of the tile
};
inline TileView tile_view(const X8& x, int columns, TokenTile t) {
  const int64_t at = int64_t(t.first) * columns;
  return {x.high + at, x.low + at, x.scales + int64_t(t.first) * (columns / 32),
          x.sums + int64_t(t.first) * (columns / 16), t.count};
}

// Sum of the activations' codes under one scale of the weights.
template <int kSub>
int32_t code_sum(const TileView& x, int block, int sub, int token) {
  const int32_t* s = x.sums + (2 * block + sub) * x.stride + token;
  return kSub == 2 ? s[0] : s[0] + s[x.stride];
}

// 254 high + low.
template <class V>
typename V::I join_planes(typename V::I high, typename V::I low) {
  return V::addi(V::subi(V::template shl32<8>(high), V::template shl32<1>(high)), low);
}

// One group of 16 rows times N tokens, straight from the packed codes.
template <class V, class P, int N>
void direct(const uint8_t* g, int columns, const TileView& x, float* y, int64_t y_stride) {
  using F = typename V::F;
  using I = typename V::I;
  using B = typename V::B;
  constexpr int kStart = V::template start_offset<P::kOffset>();
  F acc[N];
  for (int j = 0; j < N; ++j) acc[j] = V::zero();
  for (int b = 0; b < columns / 32; b += P::kStep) {
    F s[P::kStep][2], m[P::kStep][2];
    P::template scales<V>(g, columns, b, s, m);
    I high[P::kStep][P::kSub][N], low[P::kStep][P::kSub][N];
    for (int i = 0; i < P::kStep; ++i) {
      for (int h = 0; h < P::kSub; ++h) {
        for (int j = 0; j < N; ++j) {
          high[i][h][j] = V::set1i(0);
          low[i][h][j] = V::set1i(kStart == 0 ? 0 : -kStart * code_sum<P::kSub>(x, b + i, h, j));
        }
      }
    }
    P::template codes<V>(g, columns, b, [&](int i, int v, B line) __attribute__((always_inline)) {
      const int64_t at = (int64_t(b + i) * 8 + v) * N * 4;
      const int h = P::kSub == 2 ? v / 4 : 0;
      for (int j = 0; j < N; ++j) {
        high[i][h][j] = V::template dot<P::kOffset>(high[i][h][j], line, four(x.high + at + 4 * j));
        low[i][h][j] = V::template dot<P::kOffset>(low[i][h][j], line, four(x.low + at + 4 * j));
      }
    });
    for (int i = 0; i < P::kStep; ++i) {
      for (int h = 0; h < P::kSub; ++h) {
        for (int j = 0; j < N; ++j) {
          const float xs = x.scales[(b + i) * N + j];
          const I sum = join_planes<V>(high[i][h][j], low[i][h][j]);
          acc[j] = V::fma(V::to_float(sum), V::mul(s[i][h], V::set1(xs)), acc[j]);
          if constexpr (P::kMin) {
            const float t = xs * float(code_sum<P::kSub>(x, b + i, h, j));
            acc[j] = V::fma(m[i][h], V::set1(t), acc[j]);
          }
        }
      }
    }
  }
  for (int j = 0; j < N; ++j) V::store(y + j * y_stride, acc[j]);
}

// M groups unpacked: lines [columns / 4][M] of codes, scales and mins [columns / (32 / kSub)][M][16].
struct Panel {
  uint8_t* codes;
  float *scales, *mins;
};

template <class V, class P, int M>
void unpack(const MatmulArgs& a, int first_group, const Panel& panel) {
  using F = typename V::F;
  constexpr int kAdd = V::panel_offset(P::kOffset) - P::kOffset;
  for (int b = 0; b < a.columns / 32; b += P::kStep) {
    for (int g = 0; g < M; ++g) {
      const uint8_t* group = a.packed + int64_t(first_group + g) * a.group_bytes;
      F s[P::kStep][2], m[P::kStep][2];
      P::template scales<V>(group, a.columns, b, s, m);
      for (int i = 0; i < P::kStep; ++i) {
        for (int h = 0; h < P::kSub; ++h) {
          const int64_t at = ((int64_t(b + i) * P::kSub + h) * M + g) * 16;
          V::store(panel.scales + at, s[i][h]);
          if constexpr (P::kMin) V::store(panel.mins + at, m[i][h]);
        }
      }
      P::template codes<V>(group, a.columns, b,
                           [&](int i, int v, typename V::B line) __attribute__((always_inline)) {
                             V::store_line(panel.codes + ((int64_t(b + i) * 8 + v) * M + g) * 64,
                                           kAdd == 0 ? line : V::addb(line, kAdd));
                           });
    }
  }
}

// Adds kLines lines of M groups times one plane of N tokens; returns where the plane goes on.
template <class V, int kOffset, int kLines, int N, int M>
inline const int8_t* dot_lines(const uint8_t* w, const int8_t* x, int step, typename V::I (&sum)[N][M]) {
#pragma GCC unroll 8
  for (int k = 0; k < kLines; ++k) {
    typename V::B line[M];
    for (int g = 0; g < M; ++g) line[g] = V::line(w + 64 * (M * k + g));
    for (int j = 0; j < N; ++j) {
      const int32_t x4 = four(x + 4 * j);
      for (int g = 0; g < M; ++g) sum[j][g] = V::template dot<kOffset>(sum[j][g], line[g], x4);
    }
    x += step;
  }
  return x;
}

// M groups times N tokens from a panel.
template <class V, int kOffset, int kSub, bool kMin, int M, int N>
void tile(const Panel& panel, int columns, const TileView& x, int first, float* y, int64_t y_stride) {
  using F = typename V::F;
  using I = typename V::I;
  constexpr int kStart = V::template start_offset<kOffset>();
  F acc[N][M];
  for (int j = 0; j < N; ++j) {
    for (int g = 0; g < M; ++g) acc[j][g] = V::zero();
  }
  const uint8_t* w = panel.codes;
  const float *ws = panel.scales, *wm = panel.mins;
  const int8_t *high = x.high + first * 4, *low = x.low + first * 4;
  for (int b = 0; b < columns / 32; ++b) {
    for (int h = 0; h < kSub; ++h) {
      I sum[N][M];
      for (int j = 0; j < N; ++j) {
        for (int g = 0; g < M; ++g) sum[j][g] = V::set1i(0);
      }
      // One plane after the other into the same accumulators: the lines of codes are in L1, registers are
      // scarcer.
      high = dot_lines<V, kOffset, 8 / kSub>(w, high, 4 * x.stride, sum);
      for (int j = 0; j < N; ++j) {
        const I start = V::set1i(kStart == 0 ? 0 : -kStart * code_sum<kSub>(x, b, h, first + j));
        for (int g = 0; g < M; ++g) sum[j][g] = join_planes<V>(sum[j][g], start);
      }
      low = dot_lines<V, kOffset, 8 / kSub>(w, low, 4 * x.stride, sum);
      w += 8 / kSub * 64 * M;
      for (int g = 0; g < M; ++g) {
        const F s = V::load(ws + 16 * g);
        for (int j = 0; j < N; ++j) {
          const float xs = x.scales[b * x.stride + first + j];
          acc[j][g] = V::fma(V::to_float(sum[j][g]), V::mul(s, V::set1(xs)), acc[j][g]);
        }
        if constexpr (kMin) {
          const F m = V::load(wm + 16 * g);
          for (int j = 0; j < N; ++j) {
            const float t = x.scales[b * x.stride + first + j] * float(code_sum<kSub>(x, b, h, first + j));
            acc[j][g] = V::fma(m, V::set1(t), acc[j][g]);
          }
        }
      }
      ws += 16 * M, wm += 16 * M;
    }
  }
  for (int j = 0; j < N; ++j) {
    for (int g = 0; g < M; ++g) V::store(y + j * y_stride + 16 * g, acc[j][g]);
  }
}

// Tokens [first, tile end) of a token tile, at most N at a time.
template <class V, class P, int M, int N>
void tile_rest(const Panel& panel, int columns, const TileView& x, int first, float* y, int64_t y_stride) {
  constexpr int kOffset = V::panel_offset(P::kOffset);
  if constexpr (N > 0) {
    for (; x.stride - first >= N; first += N) {
      tile<V, kOffset, P::kSub, P::kMin, M, N>(panel, columns, x, first, y + first * y_stride, y_stride);
    }
    tile_rest<V, P, M, N - 1>(panel, columns, x, first, y, y_stride);
  }
}

template <class V, class P, int M>
void panel_groups(const MatmulArgs& a, int first_group) {
  uint8_t* p = a.scratch + (64 - reinterpret_cast<uintptr_t>(a.scratch) % 64) % 64;
  Panel panel{p, reinterpret_cast<float*>(p + int64_t(a.columns) * 16 * M), nullptr};
  panel.mins = panel.scales + int64_t(a.columns) / 32 * P::kSub * M * 16;
  unpack<V, P, M>(a, first_group, panel);
  for (int t = 0; t < token_tiles(a.n); ++t) {
    const TokenTile tokens = token_tile(a.n, t);
    tile_rest<V, P, M, V::kTileTokens>(panel, a.columns, tile_view(a.x8, a.columns, tokens), 0,
                                       a.y + tokens.first * a.y_stride + first_group * 16, a.y_stride);
  }
}

template <class V, class P>
void matmul_codes(const MatmulArgs& a) noexcept {
  if (a.n > 2) {  // unpack once for all tokens
    int g = 0;
    for (; g + V::kTileGroups <= a.groups; g += V::kTileGroups) panel_groups<V, P, V::kTileGroups>(a, g);
    for (; g < a.groups; ++g) panel_groups<V, P, 1>(a, g);
    return;
  }
  const TileView x = tile_view(a.x8, a.columns, {0, a.n});
  for (int g = 0; g < a.groups; ++g) {
    const uint8_t* group = a.packed + g * a.group_bytes;
    float* y = a.y + 16 * g;
    if (a.n == 1) {
      direct<V, P, 1>(group, a.columns, x, y, a.y_stride);
    } else {
      direct<V, P, 2>(group, a.columns, x, y, a.y_stride);
    }
  }
}

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
  for (int j = 0; j < N; ++j) {
    for (int i = 0; i < M; ++i) V::store(a.y + (token + j) * a.y_stride + (group + i) * 16, acc[j][i]);
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
  int g = 0;
  for (; g + 2 <= a.groups; g += 2) float_tokens<V, kFormat, 2, V::kTileTokens>(a, g, 0);
  for (; g < a.groups; ++g) float_tokens<V, kFormat, 1, V::kTileTokens>(a, g, 0);
}

template <class V>
Matmul find_matmul(Format format) noexcept {
  switch (format) {
    case Format::Q4_0:
      return matmul_codes<V, PackedQ4_0>;
    case Format::Q4_1:
      return matmul_codes<V, PackedQ4_1>;
    case Format::Q5_0:
      return matmul_codes<V, PackedQ5_0>;
    case Format::Q5_1:
      return matmul_codes<V, PackedQ5_1>;
    case Format::Q8_0:
      return matmul_codes<V, PackedQ8_0>;
    case Format::Q2_K:
      return matmul_codes<V, PackedQ2_K>;
    case Format::Q3_K:
      return matmul_codes<V, PackedQ3_K>;
    case Format::Q4_K:
      return matmul_codes<V, PackedQ4_K>;
    case Format::Q5_K:
      return matmul_codes<V, PackedQ5_K>;
    case Format::Q6_K:
      return matmul_codes<V, PackedQ6_K>;
    case Format::IQ4_NL:
      return matmul_codes<V, PackedIQ4_NL>;
    case Format::IQ4_XS:
      return matmul_codes<V, PackedIQ4_XS>;
    case Format::MXFP4:
      return matmul_codes<V, PackedMXFP4>;
    case Format::F16:
      return matmul_floats<V, Format::F16>;
    case Format::BF16:
      return matmul_floats<V, Format::BF16>;
    case Format::F32:
      return matmul_floats<V, Format::F32>;
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace plumb
