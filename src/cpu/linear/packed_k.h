// The K-quants and IQ4_XS, 256 columns to a block, packed for the kernels; see packed.h.
#pragma once

#include "cpu/linear/packed.h"

namespace plumb {
namespace {

// The 6-bit scale and min of 32-column sub-block j of Q4_K and Q5_K.
inline void six_bits(const uint8_t* s, int j, int& scale, int& min) {
  scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
  min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
}

/// Q4_K and Q5_K. Per 256 columns: d 32 bytes, dmin 32; high two bits of scales and mins 64; then for each
/// half the low four bits of (scale, min) 4 x 16, and for each pair of sub-blocks [2 lines of fifth bits] 8
/// lines of nibbles. Same bytes as in the file.
template <bool kFive>
struct Packed45K {
  static constexpr int kOffset = 0, kStep = 2, kSub = 1;
  static constexpr bool kMin = true;
  static constexpr int kPair = kFive ? 640 : 512, kHalf = 64 + 2 * kPair, kUnit = 128 + 2 * kHalf;
  static constexpr int kBlockBytes = kFive ? 176 : 144;

  static constexpr int64_t group_bytes(int columns) { return int64_t(columns / 256) * kUnit; }
  static int low_at(int j) { return 128 + j / 4 * kHalf + j % 4 * 16; }
  static int pair_at(int j) { return 192 + j / 4 * kHalf + j % 4 / 2 * kPair; }

  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    for (int s = 0; s < columns / 256; ++s) {
      for (int r = 0; r < 16; ++r) {
        if (rows[r]) pack_block(rows[r] + s * kBlockBytes, r, out + int64_t(s) * kUnit);
      }
    }
  }

  static void pack_block(const uint8_t* p, int r, uint8_t* unit) {
    copy(unit + 2 * r, p, 2), copy(unit + 32 + 2 * r, p + 2, 2);
    int scale[8], min[8];
    for (int j = 0; j < 8; ++j) {
      six_bits(p + 4, j, scale[j], min[j]);
      unit[low_at(j) + r] = uint8_t((scale[j] & 15) | (min[j] & 15) << 4);
    }
    for (int j = 0; j < 4; ++j) {
      unit[64 + j * 16 + r] =
          uint8_t(scale[j] >> 4 | scale[j + 4] >> 4 << 2 | min[j] >> 4 << 4 | min[j + 4] >> 4 << 6);
    }
    const uint8_t *high = p + 16, *nibbles = p + (kFive ? 48 : 16);
    for (int j = 0; j < 8; j += 2) {
      uint8_t* pair = unit + pair_at(j);
      if (kFive) {  // bit j of high[k] belongs to column k of sub-block j; it moves to bit k / 4
        for (int side = 0; side < 2; ++side) {
          for (int k = 0; k < 32; ++k) {
            uint8_t& byte = pair[side * 64 + 4 * r + k % 4];
            byte = uint8_t(byte | (high[k] >> (j + side) & 1) << (k / 4));
          }
        }
      }
      for (int v = 0; v < 8; ++v)
        copy(pair + (kFive ? 128 : 0) + v * 64 + 4 * r, nibbles + j / 2 * 32 + 4 * v, 4);
    }
  }

  template <class V>
  static void scales(const uint8_t* g, int, int b, typename V::F (*s)[2], typename V::F (*m)[2]) {
    const uint8_t* unit = g + int64_t(b / 8) * kUnit;
    const typename V::F d = V::from_half(unit), dmin = V::sub(V::zero(), V::from_half(unit + 32));
    for (int i = 0; i < 2; ++i) {
      const int j = b % 8 + i;
      typename V::I low = V::from_u8(unit + low_at(j)), high = V::from_u8(unit + 64 + j % 4 * 16);
      if (j < 4) high = V::template shl32<2>(high);  // now as for j >= 4: bits 2, 3 and 6, 7
      const auto join = [&](typename V::I four, typename V::I two) {
        return V::to_float(V::addi(V::andi(four, V::set1i(15)), V::andi(two, V::set1i(48))));
      };
      s[i][0] = V::mul(d, join(low, V::template shl32<2>(high)));
      m[i][0] = V::mul(dmin, join(V::template shr32<4>(low), V::template shr32<2>(high)));
    }
  }

  template <class V, class Visit>
  static void codes(const uint8_t* g, int, int b, Visit visit) {
    const uint8_t* p = g + int64_t(b / 8) * kUnit + pair_at(b % 8);
    if constexpr (kFive) {
      const typename V::B h0 = V::line(p), h1 = V::line(p + 64);
      five<V>(h0, h1, p + 128, visit);
    } else {
      for (int v = 0; v < 8; ++v) {
        const typename V::B x = V::line(p + 64 * v);
        visit(0, v, V::andb(x, 15));
        visit(1, v, V::andb(V::template shr<4>(x), 15));
      }
    }
  }

  template <class V, class Visit>
  static void five(typename V::B h0, typename V::B h1, const uint8_t* p, Visit visit) {
    const auto join = [](typename V::B nibbles, typename V::B bit) {
      return V::orb(V::andb(nibbles, 15), V::andb(bit, 16));
    };
    const auto both = [&](int v, typename V::B low, typename V::B high) {
      const typename V::B x = V::line(p + 64 * v);
      visit(0, v, join(x, low));
      visit(1, v, join(V::template shr<4>(x), high));
    };
    both(0, V::template shl<4>(h0), V::template shl<4>(h1));
    both(1, V::template shl<3>(h0), V::template shl<3>(h1));
    both(2, V::template shl<2>(h0), V::template shl<2>(h1));
    both(3, V::template shl<1>(h0), V::template shl<1>(h1));
    both(4, h0, h1);
    both(5, V::template shr<1>(h0), V::template shr<1>(h1));
    both(6, V::template shr<2>(h0), V::template shr<2>(h1));
    both(7, V::template shr<3>(h0), V::template shr<3>(h1));
  }
};
using PackedQ4_K = Packed45K<false>;
using PackedQ5_K = Packed45K<true>;

// Bytes of the f16 scales of a group's blocks of 256, which stand before everything else, in whole lines.
constexpr int64_t head_bytes(int columns) { return (int64_t(columns / 256) * 32 + 63) / 64 * 64; }

/// What Q6_K and Q3_K share: [d of all blocks] then halves of 128 columns, kLineBytes of lines after 8 x 16
/// int8 scales.
template <int kOffset_, int kLineBytes>
struct SignedHalves {
  static constexpr int kOffset = kOffset_, kStep = 4, kSub = 2, kHalf = 128 + kLineBytes;
  static constexpr bool kMin = false;

  static constexpr int64_t group_bytes(int columns) {
    return head_bytes(columns) + int64_t(columns / 128) * kHalf;
  }

  template <class V>
  static void scales(const uint8_t* g, int columns, int b, typename V::F (*s)[2], typename V::F (*)[2]) {
    const typename V::F d = V::from_half(g + b / 8 * 32);
    const uint8_t* p = g + head_bytes(columns) + int64_t(b / 4) * kHalf;
    for (int i = 0; i < 8; ++i) s[i / 2][i % 2] = V::mul(d, V::to_float(V::from_i8(p + 16 * i)));
  }
};

/// Q6_K. [d of all blocks] then for each half of 128 columns: 8 x 16 int8 scales, 8 x (2 high bits of 4
/// sub-blocks, nibbles of sub-blocks 0 and 2, of 1 and 3).
struct PackedQ6_K : SignedHalves<32, 8 * 192> {
  static constexpr int kBlockBytes = 210;

  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    for (int half = 0; half < columns / 128; ++half) {
      uint8_t* unit = out + head_bytes(columns) + int64_t(half) * kHalf;
      for (int r = 0; r < 16; ++r) {
        if (!rows[r]) continue;
        const uint8_t* p = rows[r] + half / 2 * kBlockBytes;
        const int h = half % 2;
        copy(out + half / 2 * 32 + 2 * r, p + 208, 2);
        for (int i = 0; i < 8; ++i) unit[i * 16 + r] = p[192 + 8 * h + i];
        for (int v = 0; v < 8; ++v) {
          uint8_t* q = unit + 128 + v * 192 + 4 * r;
          copy(q, p + 128 + 32 * h + 4 * v, 4);
          copy(q + 64, p + 64 * h + 4 * v, 4);
          copy(q + 128, p + 64 * h + 32 + 4 * v, 4);
        }
      }
    }
  }

  template <class V, class Visit>
  static void codes(const uint8_t* g, int columns, int b, Visit visit) {
    const uint8_t* p = g + head_bytes(columns) + int64_t(b / 4) * kHalf + 128;
    const auto join = [](typename V::B nibbles, typename V::B bits) {
      return V::orb(V::andb(nibbles, 15), V::andb(bits, 48));
    };
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v, p += 192) {
      const typename V::B h = V::line(p), x = V::line(p + 64), y = V::line(p + 128);
      visit(0, v, join(x, V::template shl<4>(h)));
      visit(1, v, join(y, V::template shl<2>(h)));
      visit(2, v, join(V::template shr<4>(x), h));
      visit(3, v, join(V::template shr<4>(y), V::template shr<2>(h)));
    }
  }
};

/// Q3_K. As Q6_K with [d] first; for each half 8 x 16 int8 scales (6 bits less 32), then 4 x (third bits of 4
/// sub-blocks for two column groups, low two bits of both).
struct PackedQ3_K : SignedHalves<4, 4 * 192> {
  static constexpr int kBlockBytes = 110;

  // Scale j of 16 columns: low four bits in bytes 0-7, high two in bytes 8-11.
  static int scale(const uint8_t* s, int j) {
    const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
    return (low | (s[8 + j % 4] >> (j / 4 * 2) & 3) << 4) - 32;
  }

  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    for (int half = 0; half < columns / 128; ++half) {
      uint8_t* unit = out + head_bytes(columns) + int64_t(half) * kHalf;
      for (int r = 0; r < 16; ++r) {
        if (!rows[r]) continue;
        const uint8_t* p = rows[r] + half / 2 * kBlockBytes;
        const int h = half % 2;
        copy(out + half / 2 * 32 + 2 * r, p + 108, 2);
        for (int i = 0; i < 8; ++i) unit[i * 16 + r] = uint8_t(scale(p + 96, 8 * h + i));
        for (int v = 0; v < 8; ++v) {
          uint8_t* q = unit + 128 + v / 2 * 192 + 4 * r;
          for (int i = 0; i < 4; ++i) q[i] = uint8_t(q[i] | (p[4 * v + i] >> (4 * h) & 15) << (v % 2 * 4));
          copy(q + 64 + v % 2 * 64, p + 32 + 32 * h + 4 * v, 4);
        }
      }
    }
  }

  template <class V, class Visit>
  static void codes(const uint8_t* g, int columns, int b, Visit visit) {
    const uint8_t* p = g + head_bytes(columns) + int64_t(b / 4) * kHalf + 128;
    const auto join = [](typename V::B two, typename V::B bit) {
      return V::orb(V::andb(two, 3), V::andb(bit, 4));
    };
#pragma GCC unroll 8
    for (int v = 0; v < 8; v += 2, p += 192) {
      const typename V::B h = V::line(p), x = V::line(p + 64), y = V::line(p + 128);
      visit(0, v, join(x, V::template shl<2>(h)));
      visit(1, v, join(V::template shr<2>(x), V::template shl<1>(h)));
      visit(2, v, join(V::template shr<4>(x), h));
      visit(3, v, join(V::template shr<6>(x), V::template shr<1>(h)));
      visit(0, v + 1, join(y, V::template shr<2>(h)));
      visit(1, v + 1, join(V::template shr<2>(y), V::template shr<3>(h)));
      visit(2, v + 1, join(V::template shr<4>(y), V::template shr<4>(h)));
      visit(3, v + 1, join(V::template shr<6>(y), V::template shr<5>(h)));
    }
  }
};

/// Q2_K. Per half of 128 columns: d 32, dmin 32, 8 x 16 bytes of (scale, min) nibbles, 8 lines of codes.
struct PackedQ2_K {
  static constexpr int kOffset = 0, kStep = 4, kSub = 2;
  static constexpr bool kMin = true;
  static constexpr int kHalf = 64 + 128 + 512, kBlockBytes = 84;

  static constexpr int64_t group_bytes(int columns) { return int64_t(columns / 128) * kHalf; }

  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    for (int half = 0; half < columns / 128; ++half) {
      uint8_t* unit = out + int64_t(half) * kHalf;
      for (int r = 0; r < 16; ++r) {
        if (!rows[r]) continue;
        const uint8_t* p = rows[r] + half / 2 * kBlockBytes;
        const int h = half % 2;
        copy(unit + 2 * r, p + 80, 2), copy(unit + 32 + 2 * r, p + 82, 2);
        for (int i = 0; i < 8; ++i) unit[64 + i * 16 + r] = p[8 * h + i];
        for (int v = 0; v < 8; ++v) copy(unit + 192 + v * 64 + 4 * r, p + 16 + 32 * h + 4 * v, 4);
      }
    }
  }

  template <class V>
  static void scales(const uint8_t* g, int, int b, typename V::F (*s)[2], typename V::F (*m)[2]) {
    const uint8_t* p = g + int64_t(b / 4) * kHalf;
    const typename V::F d = V::from_half(p), dmin = V::sub(V::zero(), V::from_half(p + 32));
    for (int i = 0; i < 8; ++i) {
      const typename V::I both = V::from_u8(p + 64 + 16 * i), low = V::andi(both, V::set1i(15));
      const typename V::I high = V::andi(both, V::set1i(240));
      s[i / 2][i % 2] = V::mul(d, V::to_float(low));
      m[i / 2][i % 2] = V::mul(dmin, V::mul(V::to_float(high), V::set1(0.0625f)));
    }
  }

  template <class V, class Visit>
  static void codes(const uint8_t* g, int, int b, Visit visit) {
    const uint8_t* p = g + int64_t(b / 4) * kHalf + 192;
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
      const typename V::B x = V::line(p + 64 * v);
      visit(0, v, V::andb(x, 3));
      visit(1, v, V::andb(V::template shr<2>(x), 3));
      visit(2, v, V::andb(V::template shr<4>(x), 3));
      visit(3, v, V::andb(V::template shr<6>(x), 3));
    }
  }
};

/// IQ4_XS. [d of all blocks] then per 256 columns 8 x 16 int8 scales (6 bits less 32) and 8 x 4 lines of
/// nibbles.
struct PackedIQ4_XS {
  static constexpr int kOffset = 128, kStep = 1, kSub = 1;
  static constexpr bool kMin = false;
  static constexpr int kUnit = 128 + 8 * 256, kBlockBytes = 136;

  static constexpr int64_t group_bytes(int columns) {
    return head_bytes(columns) + int64_t(columns / 256) * kUnit;
  }

  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    for (int s = 0; s < columns / 256; ++s) {
      uint8_t* unit = out + head_bytes(columns) + int64_t(s) * kUnit;
      for (int r = 0; r < 16; ++r) {
        if (!rows[r]) continue;
        const uint8_t* p =
            rows[r] + s * kBlockBytes;  // d, high bits of scales u16, low nibbles of scales 4, nibbles 128
        copy(out + s * 32 + 2 * r, p, 2);
        const int high = p[2] | p[3] << 8;
        for (int j = 0; j < 8; ++j) {
          const int scale = (p[4 + j / 2] >> (j % 2 * 4) & 15) | (high >> (2 * j) & 3) << 4;
          unit[j * 16 + r] = uint8_t(scale - 32);
          for (int v = 0; v < 4; ++v) copy(unit + 128 + j * 256 + v * 64 + 4 * r, p + 8 + 16 * j + 4 * v, 4);
        }
      }
    }
  }

  template <class V>
  static void scales(const uint8_t* g, int columns, int b, typename V::F (*s)[2], typename V::F (*)[2]) {
    const uint8_t* unit = g + head_bytes(columns) + int64_t(b / 8) * kUnit;
    s[0][0] = V::mul(V::from_half(g + b / 8 * 32), V::to_float(V::from_i8(unit + b % 8 * 16)));
  }

  template <class V, class Visit>
  static void codes(const uint8_t* g, int columns, int b, Visit visit) {
    const uint8_t* p = g + head_bytes(columns) + int64_t(b / 8) * kUnit + 128 + b % 8 * 256;
    for (int v = 0; v < 4; ++v) {
      const typename V::B x = V::line(p + 64 * v);
      visit(0, v, V::lookup(kIq4Codes, V::andb(x, 15)));
      visit(0, v + 4, V::lookup(kIq4Codes, V::andb(V::template shr<4>(x), 15)));
    }
  }
};

}  // namespace
}  // namespace plumb
