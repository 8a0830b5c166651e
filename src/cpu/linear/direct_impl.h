// One or two tokens: the packed codes are read once, from memory, and multiplied as they come, so what counts
// is how many reads are under way, and that nothing but the products stands between them. Four groups of rows
// advance together, four streams that the hardware follows, and each is asked for kAhead bytes early, across
// pages (docs/performance.md).
#pragma once

#include <algorithm>
#include <utility>

#include "cpu/kernels.h"
#include "cpu/linear/tile_view.h"

namespace plumb {
namespace {

template <class V>
constexpr int kStreams = V::kRegisters == 32  ? 4
                         : V::kRegisters >= 8 ? 2
                                              : 1;
constexpr int64_t kAhead = 2048;

/// Line k of the kStep blocks from block b of a group, which lies in the first-level cache.
template <class V, class P, int k>
typename V::B pick_line(const uint8_t* group, int columns, int b) noexcept {
  typename V::B found = V::line(group);
  P::template codes<V>(group, columns, b,
                       [&](int i, int v, typename V::B line) __attribute__((always_inline)) {
                         if (8 * i + v == k) found = line;
                       });
  return found;
}
template <class V, class P>
using PickLine = typename V::B (*)(const uint8_t* group, int columns, int b) noexcept;
template <class V, class P, int... k>
PickLine<V, P> line_picker(int line, std::integer_sequence<int, k...>) {
  static constexpr PickLine<V, P> kPickers[] = {pick_line<V, P, k>...};
  return kPickers[line];
}

// G groups of 16 rows times N tokens.
template <class V, class P, int G, int N, bool kLow>
struct Direct {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kStart = V::template start_offset<P::kOffset>(), kSub = P::kSub, kStep = P::kStep;
  static constexpr int kStepBytes = int(P::group_bytes(8192) / (8192 / 32)) * kStep;
  // Lines under one scale: eight in two sums, so that a product waits for fewer others; four in one.
  static constexpr int kChains = kSub == 1 ? 2 : 1;

  int columns;
  const TileView& x;
  const uint8_t* group[G];
  F acc[G][N];

  inline __attribute__((always_inline)) void run(int64_t group_bytes) {
    for (int g = 0; g < G; ++g) {
      for (int j = 0; j < N; ++j) acc[g][j] = V::zero();
    }
    const int blocks = columns / 32;
    const int64_t block_bytes = group_bytes / blocks;
    for (int window = 0; window * kWindow < columns; ++window) {
      const int end = std::min(blocks, (window + 1) * (kWindow / 32));
      for (int b = window * (kWindow / 32); b < end; b += kStep) {
        int64_t ahead = b * block_bytes + kAhead;
        if (ahead >= group_bytes) ahead += (G - 1) * group_bytes;  // behind the last of these groups
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
#pragma GCC unroll 40
          for (int k = 0; k < kStepBytes; k += 64) __builtin_prefetch(group[g] + ahead + k);
          step(g, b);
        }
      }
      if (!kLow && x.refined_at) refined(window);
    }
  }

 private:
  struct Sums {
    I high[kStep][kSub][N][kChains], low[kStep][kSub][N][kChains];
  };

  // Blocks b to b + kStep - 1 of a group.
  inline __attribute__((always_inline)) void step(int g, int b) {
    F s[kStep][2], m[kStep][2];
    P::template scales<V>(group[g], columns, b, s, m);
    Sums sums;
    start(sums, b);
    const int8_t *high = x.high + int64_t(b) * 32 * N, *low = kLow ? x.low + int64_t(b) * 32 * N : high;
    P::template codes<V>(group[g], columns, b,
                         [&](int i, int v, typename V::B line) __attribute__((always_inline)) {
                           const int at = (8 * i + v) * N * 4, h = kSub == 2 ? v / 4 : 0, c = v % kChains;
                           for (int j = 0; j < N; ++j) {
                             I& sum = sums.high[i][h][j][c];
                             sum = V::template dot<P::kOffset>(sum, line, four(high + at + 4 * j));
                             if constexpr (!kLow) continue;
                             I& rest = sums.low[i][h][j][c];
                             rest = V::template dot<P::kOffset>(rest, line, four(low + at + 4 * j));
                           }
                         });
    for (int i = 0; i < kStep; ++i) {
      for (int j = 0; j < N; ++j) {
        const F xs = V::set1(x.scales[(b + i) * N + j]);
        for (int h = 0; h < kSub; ++h) {
          const I sum = total(sums, i, h, j);
          acc[g][j] = V::fma(V::to_float(sum), V::mul(s[i][h], xs), acc[g][j]);
          if constexpr (P::kMin)
            acc[g][j] = V::fma(m[i][h], V::set1(block_sum<kSub>(x, b + i, h, j)), acc[g][j]);
        }
      }
    }
  }

  inline __attribute__((always_inline)) void start(Sums& sums, int b) const {
    for (int i = 0; i < kStep; ++i) {
      for (int h = 0; h < kSub; ++h) {
        for (int j = 0; j < N; ++j) {
          for (int c = 0; c < kChains; ++c) sums.high[i][h][j][c] = sums.low[i][h][j][c] = V::set1i(0);
          const I first = V::set1i(block_start<kSub, kStart>(x, b + i, h, j));
          (kLow ? sums.low : sums.high)[i][h][j][0] = first;
        }
      }
    }
  }

  static inline __attribute__((always_inline)) I total(const Sums& sums, int i, int h, int j) {
    const auto chains = [&](const I* sum) __attribute__((always_inline)) {
      return kChains == 2 ? V::addi(sum[0], sum[kChains - 1]) : sum[0];
    };
    const I high = chains(sums.high[i][h][j]);
    if constexpr (kLow) return join_planes<V>(high, chains(sums.low[i][h][j]));
    return high;
  }

  // The refined columns of a window.
  inline __attribute__((always_inline)) void refined(int window) {
    for (int j = 0; j < N; ++j) {
      const int token = window * N + j, at = x.refined_at[token], b = at / 8 / kStep * kStep;
      const int line = at - 8 * b, i = line / 8, h = kSub == 2 ? line % 8 / 4 : 0;
      const PickLine<V, P> pick = line_picker<V, P>(line, std::make_integer_sequence<int, 8 * kStep>());
      const I start = V::set1i(start_of<kStart>(x.refined_starts[token]));
      const F xs = V::set1(x.refined_scales[token]);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        F s[kStep][2], m[kStep][2];
        P::template scales<V>(group[g], columns, b, s, m);
        const I sum = V::template dot<P::kOffset>(start, pick(group[g], columns, b), x.refined_codes[token]);
        acc[g][j] = V::fma(V::to_float(sum), V::mul(s[i][h], xs), acc[g][j]);
        if constexpr (P::kMin) acc[g][j] = V::fma(m[i][h], V::set1(x.refined_sums[token]), acc[g][j]);
      }
    }
  }
};

template <class V, class P, int G, int N, bool kLow>
__attribute__((noinline)) void direct_groups(const MatmulArgs& a, int first, const TileView& x) {
  Direct<V, P, G, N, kLow> d{a.columns, x, {}, {}};
  for (int g = 0; g < G; ++g) d.group[g] = a.packed + (first + g) * a.group_bytes;
  d.run(a.group_bytes);
  const Output out = output_of(a);
  for (int g = 0; g < G; ++g) {
    for (int j = 0; j < N; ++j) out.template store<V>(j, 16 * (first + g), d.acc[g][j]);
  }
}

// The groups from `first` on, G at a time; they come in pairs.
template <class V, class P, int G, int N, bool kLow>
void direct(const MatmulArgs& a, int first, const TileView& x) {
  for (; first + G <= a.groups; first += G) direct_groups<V, P, G, N, kLow>(a, first, x);
  if constexpr (G > 2) direct<V, P, G / 2, N, kLow>(a, first, x);
}

}  // namespace
}  // namespace plumb
