// Operations on rows and heads, for every instruction set V: norms, rope, activations, quantisation.
#pragma once

#include <cmath>

#include "cpu/kernels.h"
#include "cpu/simd/math.h"

namespace plumb {
namespace {

/// One group of 16: q = 254 high + low into both planes, 4 codes at a time.
template <class V>
void store_codes(typename V::I q, int8_t* high, int8_t* low, int64_t step) {
  const typename V::I h = V::to_int(V::mul(V::to_float(q), V::set1(1.0f / kPlaneBase)));
  const typename V::I rest =
      V::subi(q, V::subi(V::template shl32<8>(h), V::template shl32<1>(h)));  // q - 254 h
  int8_t codes[16];
  V::store_i8(codes, h);
  for (int g = 0; g < 4; ++g) std::memcpy(high + g * step, codes + 4 * g, 4);
  V::store_i8(codes, rest);
  for (int g = 0; g < 4; ++g) std::memcpy(low + g * step, codes + 4 * g, 4);
}

/// A = max |x| over 32 elements; all zero below 2^-100; else s = A / 32384, r = 32384 / A, q = nearest even
/// of x r.
template <class V>
void quantise(const float* x, const X8& out, int columns, int n, int t, int block, int blocks,
              FaultFlag* fault) noexcept {
  const TokenTile tile = token_tile_of(n, t);
  const int j = t - tile.first, stride = tile.count;
  const int64_t at = int64_t(tile.first) * columns + j * 4, step = stride * 4;
  float* scales = out.scales + int64_t(tile.first) * (columns / 32) + j;
  int32_t* sums = out.sums + int64_t(tile.first) * (columns / 16) + j;
  for (int b = block; b < block + blocks; ++b, x += 32) {
    const typename V::F x0 = V::load(x), x1 = V::load(x + 16);
    const typename V::I magnitude = V::set1i(0x7fffffff);
    const int32_t bits =
        V::max_lane(V::maxi(V::andi(V::bits(x0), magnitude), V::andi(V::bits(x1), magnitude)));
    float largest;
    std::memcpy(&largest, &bits, 4);
    float s = 0, r = 0;
    typename V::I q0 = V::set1i(0), q1 = q0;
    if (bits >= 0x7f800000) {
      fault->store(true, std::memory_order_relaxed);
    } else if (largest >= 0x1p-100f) {
      s = largest / kLargestCode, r = kLargestCode / largest;
      q0 = V::to_int(V::mul(x0, V::set1(r))), q1 = V::to_int(V::mul(x1, V::set1(r)));
    }
    const int64_t here = at + b * 8 * step;
    store_codes<V>(q0, out.high + here, out.low + here, step);
    store_codes<V>(q1, out.high + here + 4 * step, out.low + here + 4 * step, step);
    scales[b * stride] = s;
    sums[2 * b * stride] = V::sum(q0), sums[(2 * b + 1) * stride] = V::sum(q1);
  }
}

/// y = x r g with r = 1 / sqrt(mean(x^2) + eps).
template <class V>
void rms_norm(const float* x, const float* g, int n, float eps, float* y) {
  const float r = 1 / __builtin_sqrtf(sum_of_squares<V>(x, n) / float(n) + eps);
  int k = 0;
  for (; k + 16 <= n; k += 16) V::store(y + k, V::mul(V::mul(V::load(x + k), V::set1(r)), V::load(g + k)));
  for (; k < n; ++k) y[k] = x[k] * r * g[k];
}

template <class V>
void row(const RowArgs& a, int row_in, int row_out, int n_out) noexcept {
  const int size = a.heads * a.dim;
  // Whatever form is wanted, the row passes through f32: the out buffer, the sum, or a few KB that stay in
  // L1.
  const float* x = a.x + row_in * a.x_stride;
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
  } else if (x == a.x && x != out) {
    std::memcpy(out, x, size_t(size) * 4);
  }
  if (a.out.has_x8()) quantise<V>(out, a.out.x8, size, n_out, row_out, 0, size / 32, a.fault);
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
      for (int i = 0; i < half; ++i) turn(y + 2 * i, y + 2 * i + 1, a.cosine[i], a.sine[i]);
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
