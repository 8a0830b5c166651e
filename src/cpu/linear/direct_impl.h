// One or two tokens: the packed codes are read once, from memory, and multiplied as they come, so what counts
// is how many reads are under way. Four groups of rows advance together, four streams that the hardware
// follows, and each is asked for kAhead bytes early, across pages; one group without asking reads 13 to 18
// GB/s where this reads 25 to 33 (two Ice Lake cores, docs/performance.md).
#pragma once

#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/linear/tile_view.h"

namespace plumb {
namespace {

constexpr int kStreams = 4;
constexpr int64_t kAhead = 2048;

// The refined columns of a window, for one token: found while the codes of their block pass by, added after
// the window.
template <class V>
struct Pending {
  int block = -1, line = 0, sub = 0;
  typename V::F sum, scale, min;

  void expect(int at, int subs) { block = at / 8, line = at % 8, sub = subs == 2 ? at % 8 / 4 : 0; }
  template <bool kMin>
  typename V::F add_to(typename V::F acc, float s, float min_sum) const {
    acc = V::fma(sum, V::mul(scale, V::set1(s)), acc);
    if constexpr (kMin) acc = V::fma(min, V::set1(min_sum), acc);
    return acc;
  }
};

// One group of 16 rows times N tokens.
template <class V, class P, int N, bool kLow>
struct Direct {
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kStart = V::template start_offset<P::kOffset>(), kSub = P::kSub;
  static constexpr int kWindowBlocks = kWindow / 32;

  const uint8_t* group;
  F acc[N];
  Pending<V> pending[N];

  inline __attribute__((always_inline)) void start(const uint8_t* g) {
    group = g;
    for (int j = 0; j < N; ++j) acc[j] = V::zero();
  }

  // Blocks b to b + kStep - 1.
  inline __attribute__((always_inline)) void step(int columns, const TileView& x, int b) {
    const int window = b / kWindowBlocks;
    if (x.refined_at && b % kWindowBlocks == 0) {
      for (int j = 0; j < N; ++j) pending[j].expect(x.refined_at[window * N + j], kSub);
    }
    F s[P::kStep][2], m[P::kStep][2];
    P::template scales<V>(group, columns, b, s, m);
    I high[P::kStep][kSub][N], low[P::kStep][kSub][N];
    for (int i = 0; i < P::kStep; ++i) {
      for (int h = 0; h < kSub; ++h) {
        for (int j = 0; j < N; ++j) {
          const I first = V::set1i(block_start<kSub, kStart>(x, b + i, h, j));
          high[i][h][j] = kLow ? V::set1i(0) : first, low[i][h][j] = first;
        }
      }
    }
    P::template codes<V>(
        group, columns, b, [&](int i, int v, typename V::B line) __attribute__((always_inline)) {
          const int64_t at = (int64_t(b + i) * 8 + v) * N * 4;
          const int h = kSub == 2 ? v / 4 : 0;
          for (int j = 0; j < N; ++j) {
            high[i][h][j] = V::template dot<P::kOffset>(high[i][h][j], line, four(x.high + at + 4 * j));
            if (kLow)
              low[i][h][j] = V::template dot<P::kOffset>(low[i][h][j], line, four(x.low + at + 4 * j));
            if (!kLow && pending[j].block == b + i && pending[j].line == v) {
              const I first = V::set1i(start_of<kStart>(x.refined_starts[window * N + j]));
              pending[j].sum =
                  V::to_float(V::template dot<P::kOffset>(first, line, x.refined_codes[window * N + j]));
            }
          }
        });
    for (int i = 0; i < P::kStep; ++i) {
      for (int j = 0; j < N; ++j) {
        const float xs = x.scales[(b + i) * N + j];
        for (int h = 0; h < kSub; ++h) {
          const I sum = kLow ? join_planes<V>(high[i][h][j], low[i][h][j]) : high[i][h][j];
          acc[j] = V::fma(V::to_float(sum), V::mul(s[i][h], V::set1(xs)), acc[j]);
          if constexpr (P::kMin) acc[j] = V::fma(m[i][h], V::set1(block_sum<kSub>(x, b + i, h, j)), acc[j]);
        }
        if (!kLow && pending[j].block == b + i) {
          pending[j].scale = kSub == 2 && pending[j].sub ? s[i][1] : s[i][0];
          if constexpr (P::kMin) pending[j].min = kSub == 2 && pending[j].sub ? m[i][1] : m[i][0];
        }
      }
    }
    const int next = b + P::kStep;
    if (!kLow && x.refined_at && (next % kWindowBlocks == 0 || next >= columns / 32)) end_window(x, window);
  }

 private:
  inline __attribute__((always_inline)) void end_window(const TileView& x, int window) {
    for (int j = 0; j < N; ++j) {
      const int at = window * N + j;
      acc[j] = pending[j].template add_to<P::kMin>(acc[j], x.refined_scales[at], x.refined_sums[at]);
    }
  }
};

// Up to kStreams groups from `packed` on.
template <class V, class P, int N, bool kLow>
void direct(const MatmulArgs& a, int first, int count, const TileView& x) {
  Direct<V, P, N, kLow> groups[kStreams];
  for (int i = 0; i < count; ++i) groups[i].start(a.packed + (first + i) * a.group_bytes);
  const int64_t block_bytes = a.group_bytes / (a.columns / 32);
  for (int b = 0; b < a.columns / 32; b += P::kStep) {
    int64_t ahead = b * block_bytes + kAhead;
    if (ahead >= a.group_bytes) ahead += (count - 1) * a.group_bytes;  // behind the last of these groups
    for (int i = 0; i < count; ++i) {
      for (int64_t k = 0; k < P::kStep * block_bytes; k += 64)
        __builtin_prefetch(groups[i].group + ahead + k);
      groups[i].step(a.columns, x, b);
    }
  }
  for (int i = 0; i < count; ++i) {
    for (int j = 0; j < N; ++j) V::store(a.y + 16 * (first + i) + j * a.y_stride, groups[i].acc[j]);
  }
}

}  // namespace
}  // namespace plumb
