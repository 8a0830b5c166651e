// Q8_0 in two planes, for an output matrix of which mostly one row matters (docs/numerics.md, "Screening"):
// the high six bits of every code and the scales lie before the low two bits, so that a first pass reads
// three quarters of the bytes and bounds every logit; only rows that may win are then computed, from both
// planes, with the ordinary bits.
//
// A group: units of two blocks (2 x 16 scales, then for each block 4 lines of nibbles, 2 lines of two bits);
// after all units for each block 2 lines of low bits; a bound for each of the 16 rows in f32. With u = code +
// 128, bits 2 to 5 of u are a nibble (column groups v and v + 4 in line v), bits 6 and 7 of column groups 0
// to 3 share one line, of 4 to 7 the next; bits 0 and 1 lie in their own lines in the same way.
#pragma once

#include <cmath>

#include "base/half.h"
#include "cpu/linear/packed.h"

namespace plumb {
namespace {

struct Q8Planes {
  static constexpr int kStep = 1, kSub = 1, kBlockBytes = 34;
  static constexpr int kPerBlock = 6 * 64, kUnitBytes = 64 + 2 * kPerBlock;

  static constexpr int64_t low_at(int columns) { return int64_t(columns / 32 + 1) / 2 * kUnitBytes; }
  static constexpr int64_t bounds_at(int columns) { return low_at(columns) + columns / 32 * 128; }
  /// What a pass over the high plane reads.
  static constexpr int64_t stream_bytes(int columns) { return low_at(columns); }
  static constexpr int64_t group_bytes(int columns) { return bounds_at(columns) + 64; }

  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    for (int r = 0; r < 16; ++r) {
      if (!rows[r]) continue;
      double low = 0, scales = 0;  // sums of squares
      for (int b = 0; b < columns / 32; ++b) {
        const uint8_t* p = rows[r] + b * kBlockBytes;
        uint8_t* unit = out + b / 2 * kUnitBytes;
        copy(unit + (b % 2 * 16 + r) * 2, p, 2);
        uint16_t half;
        std::memcpy(&half, p, 2);
        const double d = double(half_to_float(half));
        scales += d * d;
        low += d * d * pack_block(p + 2, r, unit + 64 + b % 2 * kPerBlock, out + low_at(columns) + b * 128);
      }
      const float bound = bound_of(low, scales, columns);
      std::memcpy(out + bounds_at(columns) + 4 * r, &bound, 4);
    }
  }

  /// What a row's logit and its screened value may differ by, over the norm of the activations: the norm of
  /// what the low bits add to their middle, and the roundings of both sums, at most 3 per block, of terms
  /// that add up to less than 258 sqrt(32) times the norm of the scales.
  static float bound_of(double low, double scales, int columns) {
    const double roundings = (3.0 * columns / 32 + 2) * 0x1p-24 * 258 * std::sqrt(32.0);
    return float((std::sqrt(low) + roundings * std::sqrt(scales)) * (1 + 0x1p-20));
  }

  /// Returns the sum of squares of low bits less 1.5.
  static double pack_block(const uint8_t* codes, int r, uint8_t* high, uint8_t* low) {
    double sum = 0;
    for (int k = 0; k < 32; ++k) {
      const int u = codes[k] ^ 128, group = k / 4, at = 4 * r + k % 4, shift = group % 4 * 2;
      uint8_t& nibbles = high[group % 4 * 64 + at];
      nibbles = uint8_t(nibbles | (u >> 2 & 15) << (group / 4 * 4));
      uint8_t& top = high[256 + group / 4 * 64 + at];
      top = uint8_t(top | (u >> 6) << shift);
      uint8_t& rest = low[group / 4 * 64 + at];
      rest = uint8_t(rest | (u & 3) << shift);
      sum += ((u & 3) - 1.5) * ((u & 3) - 1.5);
    }
    return sum;
  }

 protected:
  template <class V>
  static typename V::F scale(const uint8_t* g, int b) {
    return V::from_half(g + b / 2 * kUnitBytes + b % 2 * 32);
  }

  // Calls visit(v, u & 0xfc, two bits of `low` that belong to it).
  template <class V, class Visit>
  static inline __attribute__((always_inline)) void lines(const uint8_t* g, int b, const uint8_t* low,
                                                          Visit visit) {
    using B = typename V::B;
    const uint8_t* p = g + b / 2 * kUnitBytes + 64 + b % 2 * kPerBlock;
    const auto join = [](B nibbles, B top) { return V::orb(V::andb(nibbles, 60), V::andb(top, 192)); };
    const auto side = [&](int half, B n0, B n1, B n2, B n3) {
      const B top = V::line(p + 256 + 64 * half), rest = V::line(low + 64 * half);
      visit(4 * half, join(n0, V::template shl<6>(top)), V::andb(rest, 3));
      visit(4 * half + 1, join(n1, V::template shl<4>(top)), V::andb(V::template shr<2>(rest), 3));
      visit(4 * half + 2, join(n2, V::template shl<2>(top)), V::andb(V::template shr<4>(rest), 3));
      visit(4 * half + 3, join(n3, top), V::andb(V::template shr<6>(rest), 3));
    };
    const B x0 = V::line(p), x1 = V::line(p + 64), x2 = V::line(p + 128), x3 = V::line(p + 192);
    side(0, V::template shl<2>(x0), V::template shl<2>(x1), V::template shl<2>(x2), V::template shl<2>(x3));
    side(1, V::template shr<2>(x0), V::template shr<2>(x1), V::template shr<2>(x2), V::template shr<2>(x3));
  }
};

/// Both planes: the ordinary values.
struct PackedQ8_0Planes : Q8Planes {
  static constexpr int kOffset = 128;
  static constexpr bool kMin = false;

  template <class V>
  static void scales(const uint8_t* g, int, int b, typename V::F (*s)[2], typename V::F (*)[2]) {
    s[0][0] = scale<V>(g, b);
  }
  template <class V, class Visit>
  static void codes(const uint8_t* g, int columns, int b, Visit visit) {
    lines<V>(g, b, g + low_at(columns) + b * 128,
             [&](int v, typename V::B high, typename V::B low)
                 __attribute__((always_inline)) { visit(0, v, V::orb(high, low)); });
  }
};

/// The high plane: low bits stand for their middle, so a value is d ((u & 252) - 128) + 1.5 d.
struct PackedQ8_0High : Q8Planes {
  static constexpr int kOffset = 128;
  static constexpr bool kMin = true;

  template <class V>
  static void scales(const uint8_t* g, int, int b, typename V::F (*s)[2], typename V::F (*m)[2]) {
    s[0][0] = scale<V>(g, b), m[0][0] = V::mul(s[0][0], V::set1(1.5f));
  }
  template <class V, class Visit>
  static void codes(const uint8_t* g, int, int b, Visit visit) {
    lines<V>(g, b, g, [&](int v, typename V::B high, typename V::B) __attribute__((always_inline)) {
      visit(0, v, high);
    });
  }
};

}  // namespace
}  // namespace plumb
