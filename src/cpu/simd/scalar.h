// Sixteen lanes in plain C++: the meaning of every vector operation, and the code for machines without the
// others.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"

namespace plumb {
namespace {

struct Scalar {
  struct F {
    float v[16];
  };
  struct I {
    int32_t v[16];
  };
  struct B {
    uint8_t v[64];
  };  // 16 lanes of 4 bytes

  static constexpr int kRegisters = 4;                    // values of 16 lanes that fit
  static constexpr int kTileGroups = 1, kTileTokens = 2;  // rows / 16 and tokens of a matrix tile
  // Panels keep codes unsigned with this offset: a format's own, or 128 where bytes may use all 8 bits
  // unsigned.
  static constexpr int panel_offset(int format_offset) { return format_offset; }

  template <class R, class G>
  static R make(G g) {
    R r;
    for (size_t i = 0; i < sizeof(R) / sizeof(r.v[0]); ++i) r.v[i] = g(i);
    return r;
  }

  static F zero() { return set1(0); }
  static F set1(float x) {
    return make<F>([&](size_t) { return x; });
  }
  static F load(const float* p) {
    return make<F>([&](size_t i) { return p[i]; });
  }
  static void store(float* p, F a) { std::memcpy(p, a.v, sizeof a.v); }
  static F add(F a, F b) {
    return make<F>([&](size_t i) { return a.v[i] + b.v[i]; });
  }
  static F sub(F a, F b) {
    return make<F>([&](size_t i) { return a.v[i] - b.v[i]; });
  }
  static F mul(F a, F b) {
    return make<F>([&](size_t i) { return a.v[i] * b.v[i]; });
  }
  static F div(F a, F b) {
    return make<F>([&](size_t i) { return a.v[i] / b.v[i]; });
  }
  static F max(F a, F b) {
    return make<F>([&](size_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F fma(F a, F b, F c) {
    return make<F>([&](size_t i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
  }
  // a < b ? x : y
  static F select_less(F a, F b, F x, F y) {
    return make<F>([&](size_t i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
  }
  // lane in [first, last) ? x : y
  static F select_lanes(int first, int last, F x, F y) {
    return make<F>([&](size_t i) { return int(i) >= first && int(i) < last ? x.v[i] : y.v[i]; });
  }
  static I bits(F a) {
    I r;
    std::memcpy(r.v, a.v, sizeof r.v);
    return r;
  }
  static F from_bits(I a) {
    F r;
    std::memcpy(r.v, a.v, sizeof r.v);
    return r;
  }

  static I set1i(int32_t x) {
    return make<I>([&](size_t) { return x; });
  }
  static I addi(I a, I b) {
    return make<I>([&](size_t i) { return int32_t(uint32_t(a.v[i]) + uint32_t(b.v[i])); });
  }
  static I subi(I a, I b) {
    return make<I>([&](size_t i) { return int32_t(uint32_t(a.v[i]) - uint32_t(b.v[i])); });
  }
  static I andi(I a, I b) {
    return make<I>([&](size_t i) { return a.v[i] & b.v[i]; });
  }
  static I maxi(I a, I b) {
    return make<I>([&](size_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  template <int kBits>
  static I shl32(I a) {
    return make<I>([&](size_t i) { return int32_t(uint32_t(a.v[i]) << kBits); });
  }
  template <int kBits>
  static I shr32(I a) {  // zeros come in
    return make<I>([&](size_t i) { return int32_t(uint32_t(a.v[i]) >> kBits); });
  }
  static F to_float(I a) {
    return make<F>([&](size_t i) { return float(a.v[i]); });
  }
  static I to_int(F a) {
    return make<I>([&](size_t i) { return int32_t(std::nearbyint(a.v[i])); });
  }
  static I from_u8(const uint8_t* p) {
    return make<I>([&](size_t i) { return int32_t(p[i]); });
  }
  static I from_i8(const uint8_t* p) {
    return make<I>([&](size_t i) { return int32_t(int8_t(p[i])); });
  }
  static void store_i8(int8_t* p, I a) {
    for (int i = 0; i < 16; ++i) p[i] = int8_t(a.v[i]);
  }
  // 64 codes that fit int8, and the sum of each vector's.
  static void store_codes(int8_t* p, int32_t* sums, const I* a) {
    for (int i = 0; i < 4; ++i) {
      store_i8(p + 16 * i, a[i]);
      sums[i] = 0;
      for (int32_t x : a[i].v) sums[i] += x;
    }
  }
  // The largest of lanes 0 to 3, of 4 to 7, ...
  static void max_of_fours(int32_t* p, I a) {
    for (int i = 0; i < 4; ++i) {
      p[i] = a.v[4 * i];
      for (int j = 1; j < 4; ++j) p[i] = a.v[4 * i + j] > p[i] ? a.v[4 * i + j] : p[i];
    }
  }
  // The largest lane of each of four.
  static void max_of_each(int32_t* p, const I* a) {
    for (int i = 0; i < 4; ++i) p[i] = max_lane(a[i]);
  }
  static int32_t max_lane(I a) {
    int32_t m = a.v[0];
    for (int32_t x : a.v) m = x > m ? x : m;
    return m;
  }

  static F from_half(const uint8_t* p) {
    uint16_t h[16];
    std::memcpy(h, p, sizeof h);
    return make<F>([&](size_t i) { return half_to_float(h[i]); });
  }
  static void to_half(uint16_t* p, F a) {
    for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]);
  }
  static F from_bfloat16(const uint8_t* p) {
    uint16_t h[16];
    std::memcpy(h, p, sizeof h);
    return make<F>([&](size_t i) { return bfloat16_to_float(h[i]); });
  }

  static B line(const uint8_t* p) {
    return make<B>([&](size_t i) { return p[i]; });
  }
  static void store_line(uint8_t* p, B a) { std::memcpy(p, a.v, sizeof a.v); }
  static B andb(B a, uint8_t m) {
    return make<B>([&](size_t i) { return uint8_t(a.v[i] & m); });
  }
  static B orb(B a, B b) {
    return make<B>([&](size_t i) { return uint8_t(a.v[i] | b.v[i]); });
  }
  static B addb(B a, uint8_t x) {
    return make<B>([&](size_t i) { return uint8_t(a.v[i] + x); });
  }
  // Shifts of bytes; bits that leave a byte are lost, so callers mask alike on machines that shift wider.
  template <int kBits>
  static B shr(B a) {
    return make<B>([&](size_t i) { return uint8_t(a.v[i] >> kBits); });
  }
  template <int kBits>
  static B shl(B a) {
    return make<B>([&](size_t i) { return uint8_t(a.v[i] << kBits); });
  }
  static B lookup(const uint8_t* table16, B index) {
    return make<B>([&](size_t i) { return table16[index.v[i]]; });
  }

  // acc[lane] + sum over its 4 bytes of (code - zero) * x, where the caller accounts for kOffset - zero by
  // its start value. Here codes with offset 128 count from it, all others from 0.
  template <int kOffset>
  static constexpr int start_offset() {
    return kOffset == 128 ? 0 : kOffset;
  }
  template <int kOffset>
  static I dot(I acc, B codes, int32_t x4) {
    int8_t x[4];
    std::memcpy(x, &x4, 4);
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 4; ++j)
        acc.v[i] += (int32_t(codes.v[4 * i + j]) - (kOffset == 128 ? 128 : 0)) * x[j];
    }
    return acc;
  }
};

}  // namespace
}  // namespace plumb
