// Random numbers, memory and comparisons for the tests of the kernels. Tests only.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
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

/// Activations in int8 for n tokens, in memory of their own, laid out here from x8.h's description alone.
struct Activations {
  Activations(int n_, int columns_)
      : n(n_), columns(columns_), memory(size_t(x8_bytes(n_, columns_))), x8(memory.data(), n_, columns_) {}
  Activations(const Activations&) = delete;

  int64_t code_at(int t, int k) const {
    const TokenTile tile = token_tile_of(n, t);
    return int64_t(tile.first) * columns + int64_t(k / 4) * tile.count * 4 + (t - tile.first) * 4 + k % 4;
  }
  int64_t at(int t, int k, int per) const {  // of a scale (per 32) or a sum (per 16)
    const TokenTile tile = token_tile_of(n, t);
    return int64_t(tile.first) * (columns / per) + int64_t(k / per) * tile.count + t - tile.first;
  }
  int code(int t, int k) const { return kPlaneBase * x8.high[code_at(t, k)] + x8.low[code_at(t, k)]; }
  void set(int t, const int* codes, const float* scales) {
    for (int k = 0; k < columns; ++k) {
      const int high = int(std::nearbyint(float(codes[k]) * (1.0f / kPlaneBase)));
      x8.high[code_at(t, k)] = int8_t(high);
      x8.low[code_at(t, k)] = int8_t(codes[k] - kPlaneBase * high);
      if (k % 32 == 0) x8.scales[at(t, k, 32)] = scales[k / 32];
      int32_t& sum = x8.sums[at(t, k, 16)];
      sum = (k % 16 == 0 ? 0 : sum) + codes[k];
    }
  }

  int n, columns;
  std::vector<uint8_t> memory;
  X8 x8;
};

}  // namespace plumb::testing
