// Sixteen lanes in one register: AVX-512 F, BW, DQ, VL, VBMI, VNNI. The meaning of each operation: scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace plumb {
namespace {

struct Avx512 {
  using F = __m512;
  using I = __m512i;
  using B = __m512i;

  static constexpr int kRegisters = 32;  // values of 16 lanes that fit
  static constexpr int kTileGroups = 2,
                       kTileTokens = 6;  // 12 int and 12 float accumulators, 2 weights, 1 broadcast
  static constexpr int panel_offset(int) { return 128; }

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F select_less(F a, F b, F x, F y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
  }
  static F select_lanes(int first, int last, F x, F y) {
    const unsigned below_last = last >= 16 ? 0xffffu : last <= 0 ? 0u : (1u << last) - 1;
    const unsigned below_first = first >= 16 ? 0xffffu : first <= 0 ? 0u : (1u << first) - 1;
    return _mm512_mask_blend_ps(static_cast<__mmask16>(below_last & ~below_first), y, x);
  }
  static I bits(F a) { return _mm512_castps_si512(a); }
  static F from_bits(I a) { return _mm512_castsi512_ps(a); }

  static I set1i(int32_t x) { return _mm512_set1_epi32(x); }
  static I addi(I a, I b) { return _mm512_add_epi32(a, b); }
  static I subi(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I andi(I a, I b) { return _mm512_and_si512(a, b); }
  static I maxi(I a, I b) { return _mm512_max_epi32(a, b); }
  template <int kBits>
  static I shl32(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  template <int kBits>
  static I shr32(I a) {
    return _mm512_srli_epi32(a, kBits);
  }
  static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  static I to_int(F a) { return _mm512_cvtps_epi32(a); }
  static I from_u8(const uint8_t* p) { return _mm512_cvtepu8_epi32(load16(p)); }
  static I from_i8(const uint8_t* p) { return _mm512_cvtepi8_epi32(load16(p)); }
  static void store_i8(int8_t* p, I a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
  }
  static void store_codes(int8_t* p, int32_t* sums, const I* a) {
    const I words = _mm512_packs_epi32(a[0], a[1]), more = _mm512_packs_epi32(a[2], a[3]);
    const I order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const I bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(words, more));
    _mm512_storeu_si512(p, bytes);
    // As unsigned bytes, 128 more each: sums of eight, then of sixteen.
    I s = _mm512_sad_epu8(_mm512_xor_si512(bytes, _mm512_set1_epi8(-128)), _mm512_setzero_si512());
    s = _mm512_add_epi64(s, _mm512_shuffle_epi32(s, _MM_PERM_BADC));
    s = _mm512_permutexvar_epi32(firsts(), _mm512_sub_epi32(s, _mm512_set1_epi32(16 * 128)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), _mm512_castsi512_si128(s));
  }
  static void max_of_fours(int32_t* p, I a) {
    a = _mm512_max_epi32(a, _mm512_shuffle_epi32(a, _MM_PERM_CDAB));
    a = _mm512_max_epi32(a, _mm512_shuffle_epi32(a, _MM_PERM_BADC));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts(), a)));
  }
  static void max_of_each(int32_t* p, const I* a) {
    const auto pairs = [](I x, I y) {  // x y x y in each 128 bits
      return _mm512_max_epi32(_mm512_unpacklo_epi32(x, y), _mm512_unpackhi_epi32(x, y));
    };
    const I p0 = pairs(a[0], a[1]), p1 = pairs(a[2], a[3]);
    const I fours = _mm512_max_epi32(_mm512_unpacklo_epi64(p0, p1), _mm512_unpackhi_epi64(p0, p1));
    const __m256i half = _mm256_max_epi32(_mm512_castsi512_si256(fours), _mm512_extracti64x4_epi64(fours, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
  }
  static int32_t max_lane(I a) { return _mm512_reduce_max_epi32(a); }

  static F from_half(const uint8_t* p) { return _mm512_cvtph_ps(load32(p)); }
  static void to_half(uint16_t* p, F a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F from_bfloat16(const uint8_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load32(p)), 16));
  }

  static B line(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static void store_line(uint8_t* p, B a) { _mm512_storeu_si512(p, a); }
  static B andb(B a, uint8_t m) { return _mm512_and_si512(a, _mm512_set1_epi8(char(m))); }
  static B orb(B a, B b) { return _mm512_or_si512(a, b); }
  static B addb(B a, uint8_t x) { return _mm512_add_epi8(a, _mm512_set1_epi8(char(x))); }
  template <int kBits>
  static B shr(B a) {
    return _mm512_srli_epi16(a, kBits);
  }
  template <int kBits>
  static B shl(B a) {
    return _mm512_slli_epi16(a, kBits);
  }
  static B lookup(const uint8_t* table16, B index) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load16(table16)), index);
  }

  template <int kOffset>
  static constexpr int start_offset() {
    return kOffset;
  }
  template <int kOffset>
  static I dot(I acc, B codes, int32_t x4) {
    return _mm512_dpbusd_epi32(acc, codes, _mm512_set1_epi32(x4));
  }

 private:
  static I firsts() { return _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0); }
  static __m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
  static __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
};

}  // namespace
}  // namespace plumb
