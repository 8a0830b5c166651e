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

/// The 16 codes of one vector into a plane, four at a time.
template <class V>
void store_plane(typename V::I codes, int8_t* plane, int64_t step) {
  int8_t bytes[16];
  V::store_i8(bytes, codes);
  for (int g = 0; g < 4; ++g) std::memcpy(plane + g * step, bytes + 4 * g, 4);
}

/// Codes of a block of 32 that holds x0 and x1, at scale `largest` / kMost.
template <class V, int kMost>
void store_block(const X8Row& row, int b, float largest, typename V::F x0, typename V::F x1) {
  const float s = largest < kLeast ? 0 : largest / kMost, r = largest < kLeast ? 0 : kMost / largest;
  const typename V::I q[2] = {V::to_int(V::mul(x0, V::set1(r))), V::to_int(V::mul(x1, V::set1(r)))};
  const int64_t step = row.stride * 4;
  int32_t sum[2];
  for (int h = 0; h < 2; ++h) {
    const int64_t at = (int64_t(b) * 8 + 4 * h) * step;
    if constexpr (kMost == kLargestCode) {  // q = 254 high + low
      const typename V::I high = V::to_int(V::mul(V::to_float(q[h]), V::set1(1.0f / kPlaneBase)));
      store_plane<V>(high, row.high + at, step);
      store_plane<V>(V::subi(q[h], V::subi(V::template shl32<8>(high), V::template shl32<1>(high))),
                     row.low + at, step);
    } else {
      store_plane<V>(q[h], row.high + at, step);
    }
    sum[h] = V::sum(q[h]);
    row.starts16[(2 * b + h) * row.stride] = -kStartOffset * sum[h];
  }
  row.scales[b * row.stride] = s;
  row.sums[b * row.stride] = s * float(sum[0] + sum[1]);
  row.starts[b * row.stride] = -kStartOffset * (sum[0] + sum[1]);
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
  int32_t fours[8];
  V::max_of_fours(fours, V::andi(V::bits(x0), V::set1i(0x7fffffff)));
  V::max_of_fours(fours + 4, V::andi(V::bits(x1), V::set1i(0x7fffffff)));
  Peak peak{-1, largest / 254};
  for (int g = 0; g < 8; ++g) {
    const float x = float_of(fours[g]);
    if (peak.group < 0 && x == largest) {
      peak.group = g;
    } else {
      peak.rest = x > peak.rest ? x : peak.rest;
    }
  }
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
  const int32_t sum = V::sum(q);
  const int64_t at = window * row.stride;
  row.refined_at[at] = column / 4;
  std::memcpy(row.refined_codes + at, bytes + lane, 4);
  row.refined_starts[at] = -kStartOffset * sum;
  row.refined_scales[at] = s;
  row.refined_sums[at] = s * float(sum);
  return V::fma(V::set1(-s), V::to_float(q), x);
}

/// One window: the four columns that hold its largest magnitude are refined.
template <class V>
void store_window(const X8Row& row, const float* x, int window, int blocks) {
  constexpr int kBlocks = kWindow / 32;
  typename V::F part[kBlocks][2];
  float largest[kBlocks];
  int chosen = 0;
  for (int i = 0; i < blocks; ++i) {
    part[i][0] = V::load(x + 32 * i), part[i][1] = V::load(x + 32 * i + 16);
    largest[i] = largest_of<V>(part[i][0], part[i][1]);
    if (largest[i] > largest[chosen]) chosen = i;
  }
  if (largest[chosen] < kLeast) {
    refine_nothing(row, window);
  } else {
    typename V::F* block = part[chosen];
    const Peak peak = find_peak<V>(block[0], block[1], largest[chosen]);
    typename V::F& half = block[peak.group / 4];
    const int column = window * kWindow + 32 * chosen + 4 * peak.group;
    half = refine<V>(row, window, column, peak.group % 4 * 4, largest[chosen], half);
    largest[chosen] = peak.rest;
  }
  for (int i = 0; i < blocks; ++i)
    store_block<V, 127>(row, window * kBlocks + i, largest[i], part[i][0], part[i][1]);
}

/// Whether n values (a multiple of 16) are all finite.
template <class V>
bool all_finite(const float* x, int n) {
  typename V::I most = V::set1i(0);
  for (int k = 0; k < n; k += 16)
    most = V::maxi(most, V::andi(V::bits(V::load(x + k)), V::set1i(0x7fffffff)));
  return V::max_lane(most) < 0x7f800000;
}

template <class V>
void quantise(const float* x, const X8& out, int columns, int n, int t, FaultFlag* fault) noexcept {
  const X8Row row(out, columns, n, t);
  const bool finite = all_finite<V>(x, columns);
  if (!finite) fault->store(true, std::memory_order_relaxed);
  if (finite && row.refined_at) {
    for (int k = 0; k < columns; k += kWindow) {
      const int rest = columns - k;
      store_window<V>(row, x + k, k / kWindow, (rest < kWindow ? rest : kWindow) / 32);
    }
    return;
  }
  for (int b = 0; b < columns / 32; ++b) {  // zeros where the row is not finite
    const typename V::F x0 = finite ? V::load(x + 32 * b) : V::zero();
    const typename V::F x1 = finite ? V::load(x + 32 * b + 16) : V::zero();
    const float largest = largest_of<V>(x0, x1);
    if (row.low) {
      store_block<V, kLargestCode>(row, b, largest, x0, x1);
    } else {
      store_block<V, 127>(row, b, largest, x0, x1);
    }
  }
  for (int w = 0; row.refined_at && w < (columns + kWindow - 1) / kWindow; ++w) refine_nothing(row, w);
}

}  // namespace
}  // namespace plumb
