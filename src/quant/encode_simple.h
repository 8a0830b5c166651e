// Encoders of the blocks with one scale: the floats, Q8_0, Q4_0, Q5_0, IQ4_NL, MXFP4, Q4_1, Q5_1.
// Internal to this room.
#pragma once

#include "quant/blocks.h"
#include "quant/encode_fit.h"

namespace plumb::encoding {

inline void encode(const float* x, BlockF32& b) { b.bits = std::bit_cast<uint32_t>(*x); }
inline void encode(const float* x, BlockF16& b) { b.bits = float_to_half(*x); }
inline void encode(const float* x, BlockBF16& b) { b.bits = float_to_bfloat16(*x); }

/// The levels of 32 weights at scale d.
template <class Levels>
void levels_of(const float* x, float d, const Levels& levels, float* out) {
  const F4 id = all(inverse(d));
  for (int i = 0; i < 32; i += 4) store(out + i, levels(load(x + i) * id));
}

/// Of two scales as f16, the one with the smaller error.
template <class Levels>
float better_scale(const float* x, int n, float a, float b, const Levels& levels) {
  a = through_half(a), b = through_half(b);
  const auto gain = [&](float d) { return sums(x, n, inverse(d), levels).gain(d); };
  return gain(b) > gain(a) ? b : a;
}

inline void encode(const float* x, BlockQ8_0& b) {
  constexpr Uniform kLevels{-127, 127};
  const float first = std::abs(extreme(x, 32)) / 127;
  const Sums s = sums(x, 32, inverse(first), kLevels);
  const float d = better_scale(x, 32, first, s.vv > 0 ? s.xv / s.vv : 0, kLevels);
  float v[32];
  levels_of(x, d, kLevels, v);
  b.d = to_half(d);
  for (int i = 0; i < 32; ++i) b.qs[i] = int8_t(v[i]);
}

template <class Levels>
float scale_of_32(const float* x, const Levels& levels, float from, float to, float step) {
  const float d = best_scale(x, 32, levels, from, to, step);
  return better_scale(x, 32, extreme(x, 32) / levels.peak(), d, levels);
}

inline uint8_t nibbles(int low, int high) { return uint8_t(low | high << 4); }

inline void encode(const float* x, BlockQ4_0& b) {
  constexpr Uniform kLevels{-8, 7};
  const float d = scale_of_32(x, kLevels, -9.4f, -6.6f, 0.2f);
  float v[32];
  levels_of(x, d, kLevels, v);
  b.d = to_half(d);
  for (int i = 0; i < 16; ++i) b.qs[i] = nibbles(int(v[i]) + 8, int(v[i + 16]) + 8);
}

inline void set_high_bits(const int* q, uint8_t* qh) {
  std::fill_n(qh, 4, uint8_t(0));
  for (int i = 0; i < 32; ++i) qh[i / 8] = uint8_t(qh[i / 8] | (q[i] >> 4) << i % 8);
}

inline void encode(const float* x, BlockQ5_0& b) {
  constexpr Uniform kLevels{-16, 15};
  const float d = scale_of_32(x, kLevels, -17.4f, -14.6f, 0.2f);
  float v[32];
  int q[32];
  levels_of(x, d, kLevels, v);
  for (int i = 0; i < 32; ++i) q[i] = int(v[i]) + 16;
  b.d = to_half(d);
  set_high_bits(q, b.qh);
  for (int i = 0; i < 16; ++i) b.qs[i] = nibbles(q[i] & 15, q[i + 16] & 15);
}

/// The index of a level of IQ4_NL.
inline int iq4_code(float level) {
  return int(std::lower_bound(kIq4Values, kIq4Values + 16, int(level)) - kIq4Values);
}
inline constexpr Table kIq4Levels{kIq4Values, 16};

inline void encode(const float* x, BlockIQ4_NL& b) {
  const float low = scale_of_32(x, kIq4Levels, -148, -100, 4), high = scale_of_32(x, kIq4Levels, 96, 132, 4);
  const float d = better_scale(x, 32, low, high, kIq4Levels);
  float v[32];
  levels_of(x, d, kIq4Levels, v);
  b.d = to_half(d);
  for (int i = 0; i < 16; ++i) b.qs[i] = nibbles(iq4_code(v[i]), iq4_code(v[i + 16]));
}

inline void encode(const float* x, BlockMXFP4& b) {
  static constexpr int8_t kSorted[15] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};
  constexpr Table kLevels{kSorted, 15};
  const float e = std::abs(extreme(x, 32));
  const int exponent = e > 0 ? std::ilogb(e) : -200;
  float best = -1, v[32];
  b.e = 0;
  for (int k = -4; k <= 0; ++k) {  // the extreme between 8 and 128 steps
    const int code = std::clamp(exponent + k + 127, 0, 254);
    const float d = half_scale_e8m0(uint8_t(code)), gain = sums(x, 32, inverse(d), kLevels).gain(d);
    if (gain > best) best = gain, b.e = uint8_t(code);
  }
  levels_of(x, half_scale_e8m0(b.e), kLevels, v);
  const auto code = [](float level) {
    const int8_t magnitude = int8_t(std::abs(level));
    return int(std::lower_bound(kMxfp4Values, kMxfp4Values + 8, magnitude) - kMxfp4Values) |
           (level < 0 ? 8 : 0);
  };
  for (int i = 0; i < 16; ++i) b.qs[i] = nibbles(code(v[i]), code(v[i + 16]));
}

/// Scale and minimum as f16, and the codes 0 .. top of 32 weights.
inline Affine affine_of_32(const float* x, float top, int* q) {
  float lo = x[0], hi = x[0];
  for (int i = 1; i < 32; ++i) lo = std::min(lo, x[i]), hi = std::max(hi, x[i]);
  Affine best;
  float least = INFINITY;
  for (const Affine& a : {Affine{(hi - lo) / top, lo}, best_affine(x, 32, top, false, -1.6f, 1.6f, 0.2f)}) {
    const Affine h{through_half(a.d), through_half(a.m)};
    const float e = affine_sums(x, 32, inverse(h.d), h.m, top).error(h.d, h.m, 32);
    if (e < least) least = e, best = h;
  }
  float v[4];
  for (int i = 0; i < 32; i += 4) {
    store(v, nearest(clamp((load(x + i) - all(best.m)) * all(inverse(best.d)), all(0), all(top))));
    for (int k = 0; k < 4; ++k) q[i + k] = int(v[k]);
  }
  return best;
}

inline void encode(const float* x, BlockQ4_1& b) {
  int q[32];
  const Affine a = affine_of_32(x, 15, q);
  b.d = to_half(a.d), b.m = to_half(a.m);
  for (int i = 0; i < 16; ++i) b.qs[i] = nibbles(q[i], q[i + 16]);
}

inline void encode(const float* x, BlockQ5_1& b) {
  int q[32];
  const Affine a = affine_of_32(x, 31, q);
  b.d = to_half(a.d), b.m = to_half(a.m);
  set_high_bits(q, b.qh);
  for (int i = 0; i < 16; ++i) b.qs[i] = nibbles(q[i] & 15, q[i + 16] & 15);
}

}  // namespace plumb::encoding
