// What the encoders share: the sums of a group of weights against its rounded codes, and the searches for the
// scale, or scale and minimum, of least squared error.
//
// A fit needs no second look at the weights: with x weights and v levels, the error of scale d is
// sum xx - 2 d sum xv + d^2 sum vv, least at d = sum xv / sum vv. Sums run in four lanes of a vector and one
// fixed tree, in plain SSE2 or NEON operations; no fma (-ffp-contract=off). Internal to this room.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "quant/iq4_nl.h"
#include "quant/mxfp4.h"

namespace plumb::encoding {

using F4 = float __attribute__((vector_size(16)));
using I4 = int32_t __attribute__((vector_size(16)));

inline F4 all(float v) { return F4{v, v, v, v}; }
inline F4 load(const float* p) {
  F4 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, F4 v) { std::memcpy(p, &v, sizeof v); }
inline float total(F4 v) { return (v[0] + v[2]) + (v[1] + v[3]); }
inline F4 select(I4 mask, F4 a, F4 b) { return F4((mask & I4(a)) | (~mask & I4(b))); }
inline F4 clamp(F4 v, F4 lo, F4 hi) {
  v = select(v < lo, lo, v);
  return select(v > hi, hi, v);
}
/// Nearest even integer, for |v| < 2^22.
inline F4 nearest(F4 v) { return (v + all(0x1.8p23f)) - all(0x1.8p23f); }

/// RN16 of v, finite; what the block stores and what the decoder will multiply by.
inline uint16_t to_half(float v) { return float_to_half(std::clamp(v, -65504.0f, 65504.0f)); }
inline float through_half(float v) { return half_to_float(to_half(v)); }
/// 1 / d, or 0 where that is no useful number.
inline float inverse(float d) { return std::abs(d) < 0x1p-120f ? 0.0f : 1.0f / d; }

/// Levels at the integers from lo to hi.
struct Uniform {
  float lo, hi;
  F4 operator()(F4 v) const { return nearest(clamp(v, all(lo), all(hi))); }
  float peak() const { return lo; }  // the level of largest magnitude
};

/// Levels from an ascending table; a value between two goes to the nearer, a tie to the lower.
struct Table {
  const int8_t* values;
  int count;
  F4 operator()(F4 v) const {
    F4 level = all(float(values[0]));
    for (int i = 1; i < count; ++i) {
      const float low = float(values[i - 1]), high = float(values[i]);
      level += F4(I4(v > all(0.5f * (low + high))) & I4(all(high - low)));
    }
    return level;
  }
  float peak() const { return float(values[0]); }
};

struct Sums {
  float xv = 0, vv = 0;
  /// What scale d takes off the squared error.
  float gain(float d) const { return d * (2 * xv - d * vv); }
};

/// The sums of n weights (a multiple of 4) with their levels at inverse scale `id`.
template <class Levels>
Sums sums(const float* x, int n, float id, const Levels& levels) {
  F4 xv = all(0), vv = all(0);
  for (int i = 0; i < n; i += 4) {
    const F4 w = load(x + i), v = levels(w * all(id));
    xv += w * v, vv += v * v;
  }
  return {total(xv), total(vv)};
}

/// The weight of largest magnitude, with its sign; the first of equals.
inline float extreme(const float* x, int n) {
  float e = 0;
  for (int i = 0; i < n; ++i) {
    if (std::abs(x[i]) > std::abs(e)) e = x[i];
  }
  return e;
}

/// Tries the extreme at `from`, `from + step`, ..., `to` (levels) and returns the best fitted scale.
template <class Levels>
float best_scale(const float* x, int n, const Levels& levels, float from, float to, float step) {
  const float e = extreme(x, n), ie = inverse(e);
  float best = 0, d = e / levels.peak();
  if (ie == 0) return 0;
  const int steps = int((to - from) / step + 0.5f);
  for (int k = 0; k <= steps; ++k) {
    const Sums s = sums(x, n, (from + float(k) * step) * ie, levels);
    if (s.vv > 0 && s.xv * s.xv > best * s.vv) best = s.xv * s.xv / s.vv, d = s.xv / s.vv;
  }
  return d;
}

struct AffineSums {
  float x = 0, xx = 0, q = 0, xq = 0, qq = 0;
  /// Squared error of x = d q + m.
  float error(float d, float m, int n) const {
    return xx + d * (d * qq - 2 * xq + 2 * m * q) + m * (float(n) * m - 2 * x);
  }
};

inline AffineSums affine_sums(const float* x, int n, float id, float m, float top) {
  F4 sx = all(0), xx = all(0), sq = all(0), xq = all(0), qq = all(0);
  for (int i = 0; i < n; i += 4) {
    const F4 w = load(x + i), q = nearest(clamp((w - all(m)) * all(id), all(0), all(top)));
    sx += w, xx += w * w, sq += q, xq += w * q, qq += q * q;
  }
  return {total(sx), total(xx), total(sq), total(xq), total(qq)};
}

struct Affine {
  float d = 0, m = 0;  // w = d q + m
};

/// The best line for codes 0 .. top; with `falling`, m <= 0 (what the K formats can store).
inline Affine best_affine(const float* x, int n, float top, bool falling, float from, float to, float step) {
  float lo = x[0], hi = x[0];
  for (int i = 1; i < n; ++i) lo = std::min(lo, x[i]), hi = std::max(hi, x[i]);
  if (falling) lo = std::min(lo, 0.0f);
  if (inverse(hi - lo) == 0) return {0, lo};
  Affine best{(hi - lo) / top, lo};
  float least = INFINITY;
  const int steps = int((to - from) / step + 0.5f);
  for (int k = -1; k <= steps; ++k) {
    const float shift = k < 0 ? 0 : from + float(k) * step;
    const AffineSums s = affine_sums(x, n, (top + shift) / (hi - lo), lo, top);
    const float determinant = float(n) * s.qq - s.q * s.q;
    if (!(determinant > 0)) continue;
    Affine a{(float(n) * s.xq - s.x * s.q) / determinant, (s.qq * s.x - s.q * s.xq) / determinant};
    if (falling && a.m > 0) a = {s.qq > 0 ? s.xq / s.qq : 0, 0};
    if (const float e = s.error(a.d, a.m, n); a.d > 0 && e < least) least = e, best = a;
  }
  return best;
}

}  // namespace plumb::encoding
