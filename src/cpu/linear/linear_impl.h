// Matrix times activations, for every format, any number of tokens and every instruction set V, in one order
// of addition (docs/numerics.md):
//
//   for each block of 32 columns, ascending, and each of its scales:
//     I = sum (code - offset) q                  exact in int32, so its own order is free
//     acc = fma(float(I), w * s, acc)            w, s: scales of weights and activations
//     acc = fma(min, s * float(sum q), acc)      formats with a min
//   and after each window of 128 columns the same with the coarse codes of its refined columns.
//
// An output is one lane of one accumulator, so few and many tokens, packed codes and unpacked panels give the
// same bits.
#pragma once

#include "cpu/kernels.h"
#include "cpu/linear/direct_impl.h"
#include "cpu/linear/float_impl.h"
#include "cpu/linear/packed.h"
#include "cpu/linear/packed_k.h"

namespace plumb {
namespace {

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

// Adds kLines lines of M groups times one plane of N tokens.
template <class V, int kOffset, int kLines, int N, int M>
inline void dot_lines(const uint8_t* w, const int8_t* x, int step, typename V::I (&sum)[N][M]) {
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
}

// M groups times N tokens from a panel: one accumulator in f32 for each group and token.
template <class V, int kOffset, int kSub, bool kMin, int M, int N, bool kLow>
struct Tile {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kStart = V::template start_offset<kOffset>(), kLines = 8 / kSub;

  const Panel& panel;
  const TileView& x;
  int first;  // of the N tokens
  F acc[N][M];
  // Where tiles of this size are the tiles of X8, distances between its lines are constants.
  static constexpr bool kWhole = V::kTileTokens == kTokenTile;
  int stride = kWhole ? N : x.stride;

  void run(int columns, const Output& out) {
    for (int j = 0; j < N; ++j) {
      for (int g = 0; g < M; ++g) acc[j][g] = V::zero();
    }
    constexpr int kBlocks = kWindow / 32;
    const int blocks = columns / 32;
    for (int b = 0; b < blocks; b += kBlocks) {
      for (int i = b; i < blocks && i < b + kBlocks; ++i) {
        for (int h = 0; h < kSub; ++h) block(i, h);
      }
      if (!kLow && x.refined_at) {
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) refined(b / kBlocks, j);
      }
    }
    for (int j = 0; j < N; ++j) {
      for (int g = 0; g < M; ++g) out.template store<V>(j, 16 * g, acc[j][g]);
    }
  }

 private:
  inline __attribute__((always_inline)) void block(int b, int h) {
    const uint8_t* w = panel.codes + (int64_t(b) * 8 + h * kLines) * M * 64;
    const int64_t at = ((int64_t(b) * 8 + h * kLines) * stride + first) * 4;
    I sum[N][M];
    for (int j = 0; j < N; ++j) {
      const I start = V::set1i(block_start<kSub, kStart>(x, b, h, first + j));
      for (int g = 0; g < M; ++g) sum[j][g] = kLow ? V::set1i(0) : start;
    }
    dot_lines<V, kOffset, kLines, N, M>(w, x.high + at, 4 * stride, sum);
    if constexpr (kLow) {  // into the same accumulators: the lines of codes are in L1, registers are scarcer
      for (int j = 0; j < N; ++j) {
        const I start = V::set1i(block_start<kSub, kStart>(x, b, h, first + j));
        for (int g = 0; g < M; ++g) sum[j][g] = join_planes<V>(sum[j][g], start);
      }
      dot_lines<V, kOffset, kLines, N, M>(w, x.low + at, 4 * stride, sum);
    }
    const int64_t of_weights = (int64_t(b) * kSub + h) * M * 16;
    for (int g = 0; g < M; ++g) {
      const F s = V::load(panel.scales + of_weights + 16 * g);
      for (int j = 0; j < N; ++j) {
        const F xs = V::set1(x.scales[b * stride + first + j]);
        acc[j][g] = V::fma(V::to_float(sum[j][g]), V::mul(s, xs), acc[j][g]);
      }
      if constexpr (kMin) {
        const F m = V::load(panel.mins + of_weights + 16 * g);
        for (int j = 0; j < N; ++j)
          acc[j][g] = V::fma(m, V::set1(block_sum<kSub>(x, b, h, first + j)), acc[j][g]);
      }
    }
  }

  inline __attribute__((always_inline)) void refined(int window, int j) {
    const int token = window * stride + first + j, at = x.refined_at[token];
    const I start = V::set1i(start_of<kStart>(x.refined_starts[token]));
    const F xs = V::set1(x.refined_scales[token]);
    for (int g = 0; g < M; ++g) {
      const int64_t of_weights = (int64_t(at / kLines) * M + g) * 16;
      const I sum = V::template dot<kOffset>(start, V::line(panel.codes + (int64_t(at) * M + g) * 64),
                                             x.refined_codes[token]);
      acc[j][g] = V::fma(V::to_float(sum), V::mul(V::load(panel.scales + of_weights), xs), acc[j][g]);
      if constexpr (kMin) {
        acc[j][g] = V::fma(V::load(panel.mins + of_weights), V::set1(x.refined_sums[token]), acc[j][g]);
      }
    }
  }
};

// Tokens [first, tile end) of a token tile, at most N at a time.
template <class V, int kOffset, int kSub, bool kMin, int M, int N, bool kLow>
void tile_rest(const Panel& panel, int columns, const TileView& x, int first, const Output& out) {
  if constexpr (N > 0) {
    using T = Tile<V, kOffset, kSub, kMin, M, N, kLow>;
    for (; x.stride - first >= N; first += N) {
      T tile{panel, x, T::kWhole ? 0 : first, {}};
      tile.run(columns, out.at(first, 0));
    }
    tile_rest<V, kOffset, kSub, kMin, M, N - 1, kLow>(panel, columns, x, first, out);
  }
}

// All tokens times one panel. Formats of the same offset, scales and mins share this code.
template <class V, int kOffset, int kSub, bool kMin, int M, bool kLow>
__attribute__((noinline)) void panel_tiles(const MatmulArgs& a, const Panel& panel, const Output& out) {
  for (int t = 0; t < token_tiles(a.n); ++t) {
    const TokenTile tokens = token_tile(a.n, t);
    tile_rest<V, kOffset, kSub, kMin, M, V::kTileTokens, kLow>(
        panel, a.columns, tile_view(a.x8, a.columns, tokens), 0, out.at(tokens.first, 0));
  }
}

template <class V, class P, bool kLow>
void panel_groups(const MatmulArgs& a, int first_group) {
  constexpr int M = V::kTileGroups;
  uint8_t* p = a.scratch + (64 - reinterpret_cast<uintptr_t>(a.scratch) % 64) % 64;
  Panel panel{p, reinterpret_cast<float*>(p + int64_t(a.columns) * 16 * M), nullptr};
  panel.mins = panel.scales + int64_t(a.columns) / 32 * P::kSub * M * 16;
  unpack<V, P, M>(a, first_group, panel);
  panel_tiles<V, V::panel_offset(P::kOffset), P::kSub, P::kMin, M, kLow>(
      a, panel, output_of(a).at(0, first_group * 16));
}

template <class V, class P, bool kLow>
void matmul_rounded(const MatmulArgs& a) {
  if (a.n > 2) {  // unpack once for all tokens
    for (int g = 0; g < a.groups; g += V::kTileGroups) panel_groups<V, P, kLow>(a, g);
    return;
  }
  const TileView x = tile_view(a.x8, a.columns, {0, a.n});
  constexpr int G = kStreams<V>;
  a.n == 1 ? direct<V, P, G, 1, kLow>(a, 0, x) : direct<V, P, G, 2, kLow>(a, 0, x);
}

template <class V, class P>
void matmul_codes(const MatmulArgs& a) noexcept {
  a.x8.low ? matmul_rounded<V, P, true>(a) : matmul_rounded<V, P, false>(a);
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
