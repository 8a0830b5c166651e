// Sixteen lanes in two registers: AVX2, FMA, F16C. The meaning of each operation: scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace plumb {
namespace {

struct Avx2 {
  struct F {
    __m256 a, b;
  };
  struct I {
    __m256i a, b;
  };
  using B = I;

  static constexpr int kRegisters = 8;  // values of 16 lanes that fit
  static constexpr int kTileGroups = 1, kTileTokens = 3;
  static constexpr int panel_offset(int format_offset) { return format_offset; }

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x.a), _mm256_storeu_ps(p + 8, x.b); }
  static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
  static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
  static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
  static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
  static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
  static F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
  static F select_less(F x, F y, F t, F f) {
    return {_mm256_blendv_ps(f.a, t.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
            _mm256_blendv_ps(f.b, t.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
  }
  static F select_lanes(int first, int last, F t, F f) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const auto mask = [&](int base) {
      const __m256i at_least = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(first - base - 1));
      const __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(last - base), lane);
      return _mm256_castsi256_ps(_mm256_and_si256(at_least, below));
    };
    return {_mm256_blendv_ps(f.a, t.a, mask(0)), _mm256_blendv_ps(f.b, t.b, mask(8))};
  }
  static I bits(F x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
  static F from_bits(I x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }

  static I set1i(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static I addi(I x, I y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
  static I subi(I x, I y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
  static I andi(I x, I y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
  static I maxi(I x, I y) { return {_mm256_max_epi32(x.a, y.a), _mm256_max_epi32(x.b, y.b)}; }
  template <int kBits>
  static I shl32(I x) {
    return {_mm256_slli_epi32(x.a, kBits), _mm256_slli_epi32(x.b, kBits)};
  }
  template <int kBits>
  static I shr32(I x) {
    return {_mm256_srli_epi32(x.a, kBits), _mm256_srli_epi32(x.b, kBits)};
  }
  static F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
  static I to_int(F x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
  static I from_u8(const uint8_t* p) {
    return {_mm256_cvtepu8_epi32(load8(p)), _mm256_cvtepu8_epi32(load8(p + 8))};
  }
  static I from_i8(const uint8_t* p) {
    return {_mm256_cvtepi8_epi32(load8(p)), _mm256_cvtepi8_epi32(load8(p + 8))};
  }
  static void store_i8(int8_t* p, I x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
  }
  static void store_codes(int8_t* p, int32_t* sums, const I* x) {
    for (int i = 0; i < 4; ++i) {
      store_i8(p + 16 * i, x[i]);
      const __m256i eight = _mm256_add_epi32(x[i].a, x[i].b);
      __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
      four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
      sums[i] = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
    }
  }
  static void max_of_fours(int32_t* p, I x) {
    const auto part = [](int32_t* to, __m256i half) {
      half = _mm256_max_epi32(half, _mm256_shuffle_epi32(half, 0xb1));
      half = _mm256_max_epi32(half, _mm256_shuffle_epi32(half, 0x4e));
      to[0] = _mm256_extract_epi32(half, 0), to[1] = _mm256_extract_epi32(half, 4);
    };
    part(p, x.a), part(p + 2, x.b);
  }
  static void max_of_each(int32_t* p, const I* x) {
    for (int i = 0; i < 4; ++i) p[i] = max_lane(x[i]);
  }
  static int32_t max_lane(I x) {
    const __m256i eight = _mm256_max_epi32(x.a, x.b);
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
  }

  static F from_half(const uint8_t* p) {
    return {_mm256_cvtph_ps(load16(p)), _mm256_cvtph_ps(load16(p + 16))};
  }
  static void to_half(uint16_t* p, F x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, kNearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.b, kNearest));
  }
  static F from_bfloat16(const uint8_t* p) {
    const auto widen = [](__m128i h) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
    };
    return {widen(load16(p)), widen(load16(p + 16))};
  }

  static B line(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  static void store_line(uint8_t* p, B x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), x.b);
  }
  static B andb(B x, uint8_t m) {
    const __m256i mask = _mm256_set1_epi8(char(m));
    return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
  }
  static B orb(B x, B y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
  static B addb(B x, uint8_t n) {
    const __m256i v = _mm256_set1_epi8(char(n));
    return {_mm256_add_epi8(x.a, v), _mm256_add_epi8(x.b, v)};
  }
  template <int kBits>
  static B shr(B x) {
    return {_mm256_srli_epi16(x.a, kBits), _mm256_srli_epi16(x.b, kBits)};
  }
  template <int kBits>
  static B shl(B x) {
    return {_mm256_slli_epi16(x.a, kBits), _mm256_slli_epi16(x.b, kBits)};
  }
  static B lookup(const uint8_t* table16, B index) {
    const __m256i table = _mm256_broadcastsi128_si256(load16(table16));
    return {_mm256_shuffle_epi8(table, index.a), _mm256_shuffle_epi8(table, index.b)};
  }

  template <int kOffset>
  static constexpr int start_offset() {
    return kOffset == 128 ? 0 : kOffset;
  }
  // vpmaddubsw saturates at 16 bits: codes below 64 give at most 2 * 63 * 127 = 16,002; codes of 8 bits are
  // made signed and their sign moves to x: 2 * 128 * 127 = 32,512.
  template <int kOffset>
  static I dot(I acc, B codes, int32_t x4) {
    const __m256i x = _mm256_set1_epi32(x4), ones = _mm256_set1_epi16(1);
    const auto part = [&](__m256i sum, __m256i c) {
      if constexpr (kOffset == 128) {
        const __m256i w = _mm256_xor_si256(c, _mm256_set1_epi8(char(128)));
        return _mm256_add_epi32(
            sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)), ones));
      } else {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(c, x), ones));
      }
    };
    return {part(acc.a, codes.a), part(acc.b, codes.b)};
  }

 private:
  static __m128i load8(const uint8_t* p) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)); }
  static __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
};

}  // namespace
}  // namespace plumb
