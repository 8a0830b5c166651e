// Rounding of a row to integers for every instruction set V (docs/numerics.md, x8.h).
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd/math.h"

namespace plumb {
namespace {

// One row of a tile: where its arrays begin, and the number of tokens that stand side by side.
struct X8Row {
  X8Row(const X8& x, int columns, int n, int t) {
    const TokenTile tile = token_tile_of(n, t);
    const int64_t first = tile.first, j = t - tile.first, windows = (columns + kWindow - 1) / kWindow;
    const auto at = [&](auto* p, int64_t per_row) { return p ? p + first * per_row + j : nullptr; };
    stride = tile.count;
    high = x.high + first * columns + 4 * j;
    low = x.low ? x.low + first * columns + 4 * j : nullptr;
    scales = at(x.scales, columns / 32), sums = at(x.sums, columns / 32);
    starts = at(x.starts, columns / 32), starts16 = at(x.starts16, columns / 16);
    refined_at = at(x.refined_at, windows), refined_codes = at(x.refined_codes, windows);
    refined_starts = at(x.refined_starts, windows);
    refined_scales = at(x.refined_scales, windows), refined_sums = at(x.refined_sums, windows);
  }
  int64_t stride;
  int8_t *high, *low;
  float *scales, *sums;
  int32_t *starts, *starts16;
  int32_t *refined_at, *refined_codes, *refined_starts;
  float *refined_scales, *refined_sums;
};

// Below 2^-100 a block counts as zero: its inverse scale would overflow.
constexpr float kLeast = 0x1p-100f;

// A window's codes in one plane: 128 bytes as they lie in the row, stored four columns at a time.
inline void store_plane(const int8_t* codes, int8_t* plane, int64_t step, int fours) {
  for (int g = 0; g < fours; ++g) std::memcpy(plane + g * step, codes + 4 * g, 4);
}

template <class V>
struct Window {
  static constexpr int kBlocks = kWindow / 32;
  int index, blocks;               // of the row; how many it has
  typename V::F part[kBlocks][2];  // zeros behind the last block
  float largest[kBlocks];          // magnitude by which each block is rounded

  /// x: the row; null stands for zeros.
  Window(const float* x, int index_, int columns) : index(index_) {
    const int left = columns / 32 - kBlocks * index;
    blocks = left < kBlocks ? left : kBlocks;
    const typename V::I magnitude = V::set1i(0x7fffffff);
    typename V::I most[kBlocks];
    for (int i = 0; i < kBlocks; ++i) {
      for (int h = 0; h < 2; ++h)
        part[i][h] = x && i < blocks ? V::load(x + kWindow * index + 32 * i + 16 * h) : V::zero();
      most[i] = V::maxi(V::andi(V::bits(part[i][0]), magnitude), V::andi(V::bits(part[i][1]), magnitude));
    }
    int32_t bits[kBlocks];
    V::max_of_each(bits, most);
    std::memcpy(largest, bits, sizeof largest);
  }
};

/// The codes of a window's blocks, each at scale largest / kMost.
template <class V, int kMost>
void store_blocks(const X8Row& row, const Window<V>& w) {
  constexpr int kBlocks = Window<V>::kBlocks;
  float s[kBlocks], r[kBlocks];
  for (int i = 0; i < kBlocks; ++i) {
    s[i] = w.largest[i] < kLeast ? 0 : w.largest[i] / kMost;
    r[i] = w.largest[i] < kLeast ? 0 : kMost / w.largest[i];
  }
  alignas(64) int8_t high[kWindow], low[kWindow];
  int32_t sum[2 * kBlocks];
  for (int half = 0; half < 2; ++half) {  // two blocks at a time
    typename V::I q[4], h[4];
    for (int i = 0; i < 4; ++i) {
      const int b = 2 * half + i / 2;
      q[i] = V::to_int(V::mul(w.part[b][i % 2], V::set1(r[b])));
    }
    if constexpr (kMost == kLargestCode) {  // q = 254 high + low
      int32_t rest[4];
      for (int i = 0; i < 4; ++i) {
        h[i] = V::to_int(V::mul(V::to_float(q[i]), V::set1(1.0f / kPlaneBase)));
        q[i] = V::subi(q[i], V::subi(V::template shl32<8>(h[i]), V::template shl32<1>(h[i])));
      }
      V::store_codes(high + 64 * half, sum + 4 * half, h);
      V::store_codes(low + 64 * half, rest, q);
      for (int i = 0; i < 4; ++i) sum[4 * half + i] = kPlaneBase * sum[4 * half + i] + rest[i];
    } else {
      V::store_codes(high + 64 * half, sum + 4 * half, q);
    }
  }
  const int64_t step = row.stride * 4, first = int64_t(w.index) * kBlocks;
  store_plane(high, row.high + first * 8 * step, step, 8 * w.blocks);
  if constexpr (kMost == kLargestCode) store_plane(low, row.low + first * 8 * step, step, 8 * w.blocks);
  for (int i = 0; i < w.blocks; ++i) {
    const int64_t at = (first + i) * row.stride;
    const int32_t both = sum[2 * i] + sum[2 * i + 1];
    row.scales[at] = s[i], row.sums[at] = s[i] * float(both), row.starts[at] = -kStartOffset * both;
    row.starts16[2 * at] = -kStartOffset * sum[2 * i];
    row.starts16[2 * at + row.stride] = -kStartOffset * sum[2 * i + 1];
  }
}

// Of a block: its first group of four that holds the largest magnitude, and what rounds its other columns
// once that group is refined: their largest magnitude, or what the coarse codes may leave of the group, if
// that is more.
struct Peak {
  int group;
  float rest;
};
template <class V>
Peak find_peak(typename V::F x0, typename V::F x1, float largest) {
  float fours[8];
  int32_t bits[8];
  V::max_of_fours(bits, V::andi(V::bits(x0), V::set1i(0x7fffffff)));
  V::max_of_fours(bits + 4, V::andi(V::bits(x1), V::set1i(0x7fffffff)));
  std::memcpy(fours, bits, sizeof fours);
  Peak peak{7, largest / 254};
  for (int g = 7; g >= 0; --g) peak.group = fours[g] == largest ? g : peak.group;
  fours[peak.group] = 0;
  for (float x : fours) peak.rest = x > peak.rest ? x : peak.rest;
  return peak;
}

inline void refine_nothing(const X8Row& row, int window) {
  const int64_t at = window * row.stride;
  row.refined_at[at] = kWindow / 4 * window, row.refined_codes[at] = 0, row.refined_starts[at] = 0;
  row.refined_scales[at] = 0, row.refined_sums[at] = 0;
}

/// Coarse codes of lanes [lane, lane + 4) of x; returns what they leave of x.
template <class V>
typename V::F refine(const X8Row& row, int window, int column, int lane, float largest, typename V::F x) {
  const float s = largest / 127, r = 127 / largest;
  const typename V::F four = V::select_lanes(lane, lane + 4, x, V::zero());
  const typename V::I q = V::to_int(V::mul(four, V::set1(r)));
  int8_t bytes[16];
  V::store_i8(bytes, q);
  const int32_t sum = bytes[lane] + bytes[lane + 1] + bytes[lane + 2] + bytes[lane + 3];
  const int64_t at = window * row.stride;
  row.refined_at[at] = column / 4;
  std::memcpy(row.refined_codes + at, bytes + lane, 4);
  row.refined_starts[at] = -kStartOffset * sum;
  row.refined_scales[at] = s;
  row.refined_sums[at] = s * float(sum);
  return V::fma(V::set1(-s), V::to_float(q), x);
}

/// The four columns that hold the window's largest magnitude are refined; their block is rounded by the rest.
template <class V>
void refine_peak(const X8Row& row, Window<V>& w) {
  int chosen = 0;
  for (int i = 1; i < w.blocks; ++i) chosen = w.largest[i] > w.largest[chosen] ? i : chosen;
  if (w.largest[chosen] < kLeast) return refine_nothing(row, w.index);
  typename V::F* block = w.part[chosen];
  const Peak peak = find_peak<V>(block[0], block[1], w.largest[chosen]);
  typename V::F& half = block[peak.group / 4];
  const int column = w.index * kWindow + 32 * chosen + 4 * peak.group;
  half = refine<V>(row, w.index, column, peak.group % 4 * 4, w.largest[chosen], half);
  w.largest[chosen] = peak.rest;
}

/// Whether n values (a multiple of 16) are all finite.
template <class V>
bool all_finite(const float* x, int n) {
  typename V::I most = V::set1i(0);
  for (int k = 0; k < n; k += 16)
    most = V::maxi(most, V::andi(V::bits(V::load(x + k)), V::set1i(0x7fffffff)));
  return V::max_lane(most) < 0x7f800000;
}

/// A row that is not finite is stored as zeros.
template <class V>
void quantise(const float* x, const X8& out, int columns, int n, int t, FaultFlag* fault) noexcept {
  const X8Row row(out, columns, n, t);
  const bool finite = all_finite<V>(x, columns);
  if (!finite) fault->store(true, std::memory_order_relaxed);
  for (int i = 0; i * kWindow < columns; ++i) {
    Window<V> w(finite ? x : nullptr, i, columns);
    if (row.refined_at) refine_peak<V>(row, w);
    row.low ? store_blocks<V, kLargestCode>(row, w) : store_blocks<V, 127>(row, w);
  }
}

}  // namespace
}  // namespace plumb
