// Operations on rows and heads, for every instruction set V: norms, rope, activations.
#pragma once

#include <cmath>

#include "cpu/kernels.h"
#include "cpu/simd/math.h"

namespace plumb {
namespace {

/// y = x r g with r = 1 / sqrt(mean(x^2) + eps).
template <class V>
void rms_norm(const float* x, const float* g, int n, float eps, float* y) {
  const float r = 1 / __builtin_sqrtf(sum_of_squares<V>(x, n) / float(n) + eps);
  int k = 0;
  for (; k + 16 <= n; k += 16) V::store(y + k, V::mul(V::mul(V::load(x + k), V::set1(r)), V::load(g + k)));
  for (; k < n; ++k) y[k] = x[k] * r * g[k];
}

template <class V>
void row(const RowArgs& a, int row_in, int row_out) noexcept {
  const int size = a.heads * a.dim;
  // Whatever form is wanted, the row passes through f32: the out buffer, the sum, or a few KB that stay in
  // L1.
  const float* const given = a.x + row_in * a.x_stride;
  const float* x = given;
  float* out = a.out.f32 + row_out * a.out.stride;
  float* work = a.sum ? a.sum + row_in * a.sum_stride : out;
  if (a.scale != 1) {
    for (int k = 0; k < size; ++k) work[k] = x[k] * float(a.scale);
    x = work;
  }
  if (a.post) rms_norm<V>(x, a.post, size, a.post_eps, work), x = work;
  if (a.residual) {
    const float* r = a.residual + row_in * a.residual_stride;
    for (int k = 0; k < size; ++k) work[k] = r[k] + x[k];
    x = work;
  }
  if (a.norm) {
    for (int h = 0; h < a.heads; ++h) rms_norm<V>(x + h * a.dim, a.norm, a.dim, a.eps, out + h * a.dim);
  } else if (x == given && x != out) {
    std::memcpy(out, x, size_t(size) * 4);
  }
}

/// y_a = x_a c - x_b s, y_b = x_a s + x_b c: a product and an fma each.
inline void turn(float* a, float* b, float c, float s) {
  const float xa = *a, xb = *b;
  *a = __builtin_fmaf(xa, c, -(xb * s));
  *b = __builtin_fmaf(xa, s, xb * c);
}

/// The same for 16 pairs; a product with -1 only turns the sign.
template <class V>
void turn(float* a, float* b, const float* cosine, const float* sine) {
  const typename V::F xa = V::load(a), xb = V::load(b), c = V::load(cosine), s = V::load(sine);
  V::store(a, V::fma(xa, c, V::mul(V::mul(xb, s), V::set1(-1))));
  V::store(b, V::fma(xa, s, V::mul(xb, c)));
}

/// The pairs (2 i, 2 i + 1), written so that compilers vectorise it.
inline void turn_neighbours(float* __restrict y, const float* __restrict cosine, const float* __restrict sine,
                            int pairs) {
  for (int i = 0; i < pairs; ++i) {
    const float xa = y[2 * i], xb = y[2 * i + 1], c = cosine[i], s = sine[i];
    y[2 * i] = __builtin_fmaf(xa, c, -(xb * s));
    y[2 * i + 1] = __builtin_fmaf(xa, s, xb * c);
  }
}

template <class V>
void head(const HeadArgs& a) noexcept {
  for (int h = 0; h < a.heads; ++h) {
    const float* x = a.x + h * a.dim;
    float* y = a.y + h * a.dim;
    if (a.norm) {
      rms_norm<V>(x, a.norm, a.dim, a.eps, y);
    } else if (x != y) {
      std::memcpy(y, x, size_t(a.dim) * 4);
    }
    if (!a.cosine) continue;
    const int half = a.dims / 2;
    if (a.style == RopeStyle::half) {
      int i = 0;
      for (; i + 16 <= half; i += 16) turn<V>(y + i, y + i + half, a.cosine + i, a.sine + i);
      for (; i < half; ++i) turn(y + i, y + i + half, a.cosine[i], a.sine[i]);
    } else {
      turn_neighbours(y, a.cosine, a.sine, half);
    }
  }
}

template <class V>
void glu(Act act, const float* gate, const float* up, float* y, int n) noexcept {
  for (int k = 0; k < n; k += 16)
    V::store(y + k, V::mul(activate<V>(act, V::load(gate + k)), V::load(up + k)));
}

template <class V>
void add(const float* a, const float* b, float* y, int n) noexcept {
  for (int k = 0; k < n; k += 16) V::store(y + k, V::add(V::load(a + k), V::load(b + k)));
}

}  // namespace
}  // namespace plumb
