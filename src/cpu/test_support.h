// Random numbers, memory and comparisons for the tests of the kernels. Tests only.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/isa.h"
#include "cpu/kernels.h"
#include "plan/plan.h"

namespace plumb::testing {

using Random = std::mt19937_64;

inline int up_to(Random& r, int last) { return int(r() % uint64_t(last + 1)); }  // 0..last
inline double uniform(Random& r) { return double(r() >> 11) * 0x1p-53; }
inline float normal(Random& r) {
  double sum = 0;
  for (int i = 0; i < 12; ++i) sum += uniform(r);
  return float(sum - 6);
}
inline std::vector<float> normals(Random& r, size_t n, float size = 1) {
  std::vector<float> x(n);
  for (float& v : x) v = size * normal(r);
  return x;
}

/// The instruction sets that this machine runs, scalar first.
inline std::vector<Isa> isas() {
  std::vector<Isa> list;
  for (Isa isa : all_isas()) {
    if (supported(isa)) list.push_back(isa);
  }
  return list;
}

/// Index of the first element whose bits differ, or -1.
inline int64_t first_difference(const float* a, const float* b, int64_t n) {
  if (n == 0 || std::memcmp(a, b, size_t(n) * 4) == 0) return -1;
  int64_t i = 0;
  while (std::memcmp(a + i, b + i, 4) == 0) ++i;
  return i;
}

/// Appends a hash of the bits to the file that PLUMB_BITS names: two machines must write the same.
inline void note_bits(const std::vector<float>& y) {
  const char* path = std::getenv("PLUMB_BITS");
  if (!path) return;
  uint64_t hash = 0;
  for (const float v : y) {
    uint32_t bits;
    std::memcpy(&bits, &v, 4);
    hash = (hash ^ bits) * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 32;
  }
  std::ofstream(path, std::ios::app) << y.size() << ' ' << hash << '\n';
}

/// A row as codes: of 8 or 16 bits, and the coarse codes of the refined columns of each window.
struct CodedRow {
  std::vector<int> codes;       // [columns]
  std::vector<float> scales;    // [columns / 32]
  std::vector<int> refined_at;  // [windows]: first of the four columns, / 4; empty without refinement
  std::vector<std::array<int, 4>> refined;  // [windows]
  std::vector<float> refined_scales;        // [windows]
};

/// Rounded activations for n tokens, in memory of their own, laid out here from x8.h's description alone.
struct Activations {
  Activations(int n_, int columns_, Rounding rounding_)
      : n(n_),
        columns(columns_),
        rounding(rounding_),
        memory(size_t(x8_bytes(n_, columns_, rounding_))),
        x8(memory.data(), n_, columns_, rounding_) {}
  Activations(const Activations&) = delete;

  int64_t code_at(int t, int k) const {
    const TokenTile tile = token_tile_of(n, t);
    return int64_t(tile.first) * columns + int64_t(k / 4) * tile.count * 4 + (t - tile.first) * 4 + k % 4;
  }
  int64_t at(int t, int i, int per_row) const {
    const TokenTile tile = token_tile_of(n, t);
    return int64_t(tile.first) * per_row + int64_t(i) * tile.count + t - tile.first;
  }
  int code(int t, int k) const {
    return x8.low ? kPlaneBase * x8.high[code_at(t, k)] + x8.low[code_at(t, k)] : x8.high[code_at(t, k)];
  }

  void set(int t, const CodedRow& row) {
    for (int k = 0; k < columns; ++k) {
      const int q = row.codes[size_t(k)],
                high = x8.low ? int(std::nearbyint(float(q) * (1.0f / kPlaneBase))) : q;
      x8.high[code_at(t, k)] = int8_t(high);
      if (x8.low) x8.low[code_at(t, k)] = int8_t(q - kPlaneBase * high);
    }
    const auto sum = [&](int first, int count) {
      return std::accumulate(row.codes.begin() + first, row.codes.begin() + first + count, 0);
    };
    for (int b = 0; b < columns / 32; ++b) {
      const int64_t i = at(t, b, columns / 32);
      x8.scales[i] = row.scales[size_t(b)];
      x8.sums[i] = row.scales[size_t(b)] * float(sum(32 * b, 32));
      x8.starts[i] = -128 * sum(32 * b, 32);
      for (int h = 0; h < 2; ++h)
        x8.starts16[at(t, 2 * b + h, columns / 16)] = -128 * sum(32 * b + 16 * h, 16);
    }
    for (size_t w = 0; x8.refined_at && w < row.refined_at.size(); ++w) {
      const int64_t i = at(t, int(w), int(row.refined_at.size()));
      int total = 0;
      for (int k = 0; k < 4; ++k) {
        reinterpret_cast<int8_t*>(x8.refined_codes + i)[k] = int8_t(row.refined[w][size_t(k)]);
        total += row.refined[w][size_t(k)];
      }
      x8.refined_at[i] = row.refined_at[w], x8.refined_starts[i] = -128 * total;
      x8.refined_scales[i] = row.refined_scales[w];
      x8.refined_sums[i] = row.refined_scales[w] * float(total);
    }
  }

  int n, columns;
  Rounding rounding;
  std::vector<uint8_t> memory;
  X8 x8;
};

}  // namespace plumb::testing
