// Elementary functions in our own operations, so that every instruction set gives the same bits; and exact
// reductions.
#pragma once

#include <cstdint>
#include <cstring>

#include "program/program.h"

namespace plumb {
namespace {

/// e^x for x <= 0; 0 below -86. x = n ln 2 + r, e^r by its Taylor polynomial of degree 6: |r| <= 0.3466 gives
/// a relative error below r^7 / 5040 = 1.2e-7, and with the roundings 2.5e-7. n >= -125, so the power of two
/// is added to the exponent.
template <class V>
typename V::F exp_negative(typename V::F x) {
  using F = typename V::F;
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer, kept in the low bits
  const F t = V::fma(x, V::set1(0x1.715476p0f), V::set1(kMagic));
  const F n = V::sub(t, V::set1(kMagic));
  F r = V::fma(n, V::set1(-0x1.62e4p-1f), x);  // ln 2 in two parts: n times the first is exact
  r = V::fma(n, V::set1(-0x1.7f7d1cp-20f), r);
  F p = V::set1(1 / 720.0f);
  p = V::fma(p, r, V::set1(1 / 120.0f));
  p = V::fma(p, r, V::set1(1 / 24.0f));
  p = V::fma(p, r, V::set1(1 / 6.0f));
  p = V::fma(p, r, V::set1(0.5f));
  p = V::fma(p, r, V::set1(1));
  p = V::fma(p, r, V::set1(1));
  const F y = V::from_bits(V::addi(V::bits(p), V::template shl32<23>(V::bits(t))));
  return V::select_less(x, V::set1(-86), V::zero(), y);
}

inline float float_of(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

/// The largest magnitude of 32 numbers; not finite where one of them is not.
template <class V>
float largest_of(typename V::F x0, typename V::F x1) {
  const typename V::I magnitude = V::set1i(0x7fffffff);
  return float_of(V::max_lane(V::maxi(V::andi(V::bits(x0), magnitude), V::andi(V::bits(x1), magnitude))));
}

/// 1 / (1 + e^-x), from e^-|x| so that nothing overflows.
template <class V>
typename V::F sigmoid(typename V::F x) {
  using F = typename V::F;
  const F e = exp_negative<V>(
      V::from_bits(V::addi(V::andi(V::bits(x), V::set1i(0x7fffffff)), V::set1i(int32_t(0x80000000)))));
  const F one = V::set1(1), d = V::add(one, e);
  return V::div(V::select_less(x, V::zero(), e, one), d);
}

/// SiLU x sigmoid(x); GELU in its tanh form, which is x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)).
template <class V>
typename V::F activate(Act act, typename V::F x) {
  using F = typename V::F;
  if (act == Act::silu) return V::mul(x, sigmoid<V>(x));
  const F cubic = V::fma(V::mul(V::mul(x, x), V::set1(0.044715f)), x, x);
  return V::mul(x, sigmoid<V>(V::mul(cubic, V::set1(1.5957691216057308f))));
}

/// The fixed tree of numerics.md: j + 8, then + 4, + 2, + 1.
inline float tree16(const float* p) {
  float a[8];
  for (int j = 0; j < 8; ++j) a[j] = p[j] + p[j + 8];
  for (int j = 0; j < 4; ++j) a[j] += a[j + 4];
  return (a[0] + a[2]) + (a[1] + a[3]);
}

/// The largest of 16 numbers.
inline float largest16(const float* p) {
  float a[8];
  for (int j = 0; j < 8; ++j) a[j] = p[j] > p[j + 8] ? p[j] : p[j + 8];
  for (int half = 4; half >= 1; half /= 2) {
    for (int j = 0; j < half; ++j) a[j] = a[j] > a[j + half] ? a[j] : a[j + half];
  }
  return a[0];
}

/// Sum of squares of n elements: 64 partial sums, element k into k mod 64 by fma, then the tree j + 32, j +
/// 16, ...
template <class V>
float sum_of_squares(const float* x, int n) {
  typename V::F part[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
  int k = 0;
  for (; k + 64 <= n; k += 64) {
    for (int j = 0; j < 4; ++j) {
      const typename V::F v = V::load(x + k + 16 * j);
      part[j] = V::fma(v, v, part[j]);
    }
  }
  float p[64];
  for (int j = 0; j < 4; ++j) V::store(p + 16 * j, part[j]);
  for (; k < n; ++k) p[k % 64] = __builtin_fmaf(x[k], x[k], p[k % 64]);
  for (int half = 32; half >= 16; half /= 2) {
    for (int j = 0; j < half; ++j) p[j] += p[j + half];
  }
  return tree16(p);
}

}  // namespace
}  // namespace plumb
