// Sixteen lanes in four registers: NEON with the dot product of armv8.2. The meaning of each operation:
// scalar.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace plumb {
namespace {

struct Neon {
  struct F {
    float32x4_t a, b, c, d;
  };
  struct I {
    int32x4_t a, b, c, d;
  };
  struct B {
    uint8x16_t a, b, c, d;
  };

  // 12 sums, 12 accumulators, 4 registers of codes and one of activations, of 32.
  static constexpr int kTileGroups = 1, kTileTokens = 3;
  static constexpr int kRegisters = 8;  // values of 16 lanes that fit
  // Codes of 8 bits are signed in panels, as the dot product wants them.
  static constexpr int panel_offset(int format_offset) { return format_offset == 128 ? 0 : format_offset; }

  static F zero() { return set1(0); }
  static F set1(float x) {
    const float32x4_t v = vdupq_n_f32(x);
    return {v, v, v, v};
  }
  static F load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
  }
  static void store(float* p, F x) {
    vst1q_f32(p, x.a), vst1q_f32(p + 4, x.b), vst1q_f32(p + 8, x.c), vst1q_f32(p + 12, x.d);
  }
  static F add(F x, F y) {
    return each<F>(x, y, [](auto p, auto q) { return vaddq_f32(p, q); });
  }
  static F sub(F x, F y) {
    return each<F>(x, y, [](auto p, auto q) { return vsubq_f32(p, q); });
  }
  static F mul(F x, F y) {
    return each<F>(x, y, [](auto p, auto q) { return vmulq_f32(p, q); });
  }
  static F div(F x, F y) {
    return each<F>(x, y, [](auto p, auto q) { return vdivq_f32(p, q); });
  }
  static F max(F x, F y) {  // vmaxq_f32 treats NaN and zeros differently
    return each<F>(x, y, [](auto p, auto q) { return vbslq_f32(vcgtq_f32(p, q), p, q); });
  }
  static F fma(F x, F y, F z) {
    return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
            vfmaq_f32(z.d, x.d, y.d)};
  }
  static F select_less(F x, F y, F t, F f) {
    return {vbslq_f32(vcltq_f32(x.a, y.a), t.a, f.a), vbslq_f32(vcltq_f32(x.b, y.b), t.b, f.b),
            vbslq_f32(vcltq_f32(x.c, y.c), t.c, f.c), vbslq_f32(vcltq_f32(x.d, y.d), t.d, f.d)};
  }
  static F select_lanes(int first, int last, F t, F f) {
    constexpr int32_t kLanes[] = {0, 1, 2, 3};
    const auto part = [&](int base, float32x4_t yes, float32x4_t no) {
      const int32x4_t lane = vaddq_s32(vld1q_s32(kLanes), vdupq_n_s32(base));
      const uint32x4_t inside =
          vandq_u32(vcgeq_s32(lane, vdupq_n_s32(first)), vcltq_s32(lane, vdupq_n_s32(last)));
      return vbslq_f32(inside, yes, no);
    };
    return {part(0, t.a, f.a), part(4, t.b, f.b), part(8, t.c, f.c), part(12, t.d, f.d)};
  }
  static I bits(F x) {
    return each<I>(x, [](auto p) { return vreinterpretq_s32_f32(p); });
  }
  static F from_bits(I x) {
    return each<F>(x, [](auto p) { return vreinterpretq_f32_s32(p); });
  }

  static I set1i(int32_t x) {
    const int32x4_t v = vdupq_n_s32(x);
    return {v, v, v, v};
  }
  static I addi(I x, I y) {
    return each<I>(x, y, [](auto p, auto q) { return vaddq_s32(p, q); });
  }
  static I subi(I x, I y) {
    return each<I>(x, y, [](auto p, auto q) { return vsubq_s32(p, q); });
  }
  static I andi(I x, I y) {
    return each<I>(x, y, [](auto p, auto q) { return vandq_s32(p, q); });
  }
  static I maxi(I x, I y) {
    return each<I>(x, y, [](auto p, auto q) { return vmaxq_s32(p, q); });
  }
  template <int kBits>
  static I shl32(I x) {
    return each<I>(x, [](auto p) { return vshlq_n_s32(p, kBits); });
  }
  template <int kBits>
  static I shr32(I x) {
    return each<I>(
        x, [](auto p) { return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(p), kBits)); });
  }
  static F to_float(I x) {
    return each<F>(x, [](auto p) { return vcvtq_f32_s32(p); });
  }
  static I to_int(F x) {
    return each<I>(x, [](auto p) { return vcvtnq_s32_f32(p); });
  }
  static I from_u8(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
    const int16x8_t high = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(bytes)));
    return widen(low, high);
  }
  static I from_i8(const uint8_t* p) {
    const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
    return widen(vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
  }
  static void store_i8(int8_t* p, I x) {
    const int16x8_t low = vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b));
    const int16x8_t high = vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
  }
  static void store_codes(int8_t* p, int32_t* sums, const I* x) {
    for (int i = 0; i < 4; ++i) {
      store_i8(p + 16 * i, x[i]);
      sums[i] = vaddvq_s32(vaddq_s32(vaddq_s32(x[i].a, x[i].b), vaddq_s32(x[i].c, x[i].d)));
    }
  }
  static void max_of_fours(int32_t* p, I x) {
    p[0] = vmaxvq_s32(x.a), p[1] = vmaxvq_s32(x.b), p[2] = vmaxvq_s32(x.c), p[3] = vmaxvq_s32(x.d);
  }
  static void max_of_each(int32_t* p, const I* x) {
    for (int i = 0; i < 4; ++i) p[i] = max_lane(x[i]);
  }
  static int32_t max_lane(I x) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.b), vmaxq_s32(x.c, x.d))); }

  static F from_half(const uint8_t* p) {
    const auto part = [p](int i) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i))); };
    return {part(0), part(1), part(2), part(3)};
  }
  static void to_half(uint16_t* p, F x) {
    const auto part = [p](int i, float32x4_t v) {
      vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(v)));
    };
    part(0, x.a), part(1, x.b), part(2, x.c), part(3, x.d);
  }
  static F from_bfloat16(const uint8_t* p) {
    const auto part = [p](int i) {
      return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p + 8 * i)), 16));
    };
    return {part(0), part(1), part(2), part(3)};
  }

  static B line(const uint8_t* p) {
    return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)};
  }
  static void store_line(uint8_t* p, B x) {
    vst1q_u8(p, x.a), vst1q_u8(p + 16, x.b), vst1q_u8(p + 32, x.c), vst1q_u8(p + 48, x.d);
  }
  static B andb(B x, uint8_t m) {
    return each<B>(x, [mask = vdupq_n_u8(m)](auto p) { return vandq_u8(p, mask); });
  }
  static B orb(B x, B y) {
    return each<B>(x, y, [](auto p, auto q) { return vorrq_u8(p, q); });
  }
  static B addb(B x, uint8_t n) {
    return each<B>(x, [v = vdupq_n_u8(n)](auto p) { return vaddq_u8(p, v); });
  }
  template <int kBits>
  static B shr(B x) {
    return each<B>(x, [](auto p) { return vshrq_n_u8(p, kBits); });
  }
  template <int kBits>
  static B shl(B x) {
    return each<B>(x, [](auto p) { return vshlq_n_u8(p, kBits); });
  }
  static B lookup(const uint8_t* table16, B index) {
    return each<B>(index, [table = vld1q_u8(table16)](auto p) { return vqtbl1q_u8(table, p); });
  }

  template <int kOffset>
  static constexpr int start_offset() {
    return kOffset == 128 ? 0 : kOffset;
  }
  // Codes with offset 128 become signed; the others are below 128 and are signed as they are.
  template <int kOffset>
  static I dot(I acc, B codes, int32_t x4) {
    const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(x4));
    const auto part = [x](int32x4_t sum, uint8x16_t c) {
      if constexpr (kOffset == 128) c = veorq_u8(c, vdupq_n_u8(128));
      return vdotq_s32(sum, vreinterpretq_s8_u8(c), x);
    };
    return {part(acc.a, codes.a), part(acc.b, codes.b), part(acc.c, codes.c), part(acc.d, codes.d)};
  }

 private:
  template <class R, class X, class Operation>
  static R each(X x, const Operation& of) {
    return {of(x.a), of(x.b), of(x.c), of(x.d)};
  }
  template <class R, class X, class Operation>
  static R each(X x, X y, const Operation& of) {
    return {of(x.a, y.a), of(x.b, y.b), of(x.c, y.c), of(x.d, y.d)};
  }
  static I widen(int16x8_t low, int16x8_t high) {
    return {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
            vmovl_s16(vget_high_s16(high))};
  }
};

}  // namespace
}  // namespace plumb
