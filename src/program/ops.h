// The formula of every operation, one readable function each, in f32 or f64: the specification that the
// kernels follow.
//
// Rows are [T, heads * dim], contiguous. T is float or double; weights arrive decoded. Sums run in 16 partial
// sums, which the order of a specification may choose and which lets a compiler use vectors.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <vector>

#include "program/program.h"

namespace plumb::ops {

template <class T>
T dot(const T* a, const T* b, int n) {
  T part[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int j = 0; j < 16; ++j) part[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) part[i % 16] += a[i] * b[i];
  T sum = 0;
  for (T x : part) sum += x;
  return sum;
}

/// y_i = x_i / sqrt(mean(x^2) + eps) * g_i.  Zhang & Sennrich 2019, arXiv:1910.07467.
template <class T>
void rms_norm(const T* x, const T* g, int n, T eps, T* y) {
  const T r = 1 / std::sqrt(dot(x, x, n) / T(n) + eps);
  for (int i = 0; i < n; ++i) y[i] = x[i] * r * g[i];
}

/// The angle by which pair i of `rope.dims / 2` turns at position pos, and the factor on cosine and sine.
/// Su et al. 2021, arXiv:2104.09864; linear scaling: Chen et al. 2023, arXiv:2306.15595; YaRN: Peng et al.
/// 2023, arXiv:2309.00071, sections 3.2 (ramp between interpolation and extrapolation) and 3.4 (attention
/// temperature).
struct Turn {
  double angle, magnitude;
};
inline Turn rope_turn(const Rope& rope, double divisor, double pos, int i) {
  const double base = rope.freq_base, dims = rope.dims;  // f64 throughout
  const double angle = pos * std::pow(base, -2.0 * i / dims) / divisor;
  if (rope.scaling == RopeScaling::none) return {angle, rope.attn_factor};
  if (rope.scaling == RopeScaling::linear) return {angle / rope.factor, rope.attn_factor};
  const auto pair_turning =
      [&](double turns) {  // index of the pair that turns so often within the original context
        return dims * std::log(rope.original_context / (turns * 2 * std::numbers::pi)) / (2 * std::log(base));
      };
  const double low = std::max(0.0, std::floor(pair_turning(rope.beta_fast)));
  const double high = std::min(dims - 1, std::ceil(pair_turning(rope.beta_slow)));
  const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
  return {angle / rope.factor * ramp + angle * (1 - ramp),
          rope.attn_factor * (1 + 0.1 * std::log(double(rope.factor)))};
}

/// Turns the pairs of one head of size dim; `factors` may be null.
template <class T>
void rope(const Rope& rope, const T* factors, int64_t pos, int dim, const T* x, T* y) {
  std::copy(x, x + dim, y);
  for (int i = 0; i < rope.dims / 2; ++i) {
    const Turn turn = rope_turn(rope, factors ? double(factors[i]) : 1.0, double(pos), i);
    const T c = T(std::cos(turn.angle) * turn.magnitude), s = T(std::sin(turn.angle) * turn.magnitude);
    const int a = rope.style == RopeStyle::half ? i : 2 * i;
    const int b = rope.style == RopeStyle::half ? i + rope.dims / 2 : 2 * i + 1;
    y[a] = x[a] * c - x[b] * s;
    y[b] = x[a] * s + x[b] * c;
  }
}

/// One query head at position pos over the cached keys and values [pos + 1, stride] of its kv head:
/// softmax(scale q k^T) v over the visible keys. Vaswani et al. 2017, arXiv:1706.03762.
template <class T>
void attention(const Attention& a, const T* q, const T* keys, const T* values, int64_t stride, int64_t pos,
               int dim, T* y) {
  const int64_t first = a.window > 0 ? std::max<int64_t>(0, pos - a.window + 1) : 0;
  std::vector<T> p(size_t(pos - first + 1));
  T largest = -std::numeric_limits<T>::infinity(), sum = 0;
  for (size_t u = 0; u < p.size(); ++u) {
    p[u] = dot(q, keys + (first + int64_t(u)) * stride, dim) * T(a.scale);
    largest = std::max(largest, p[u]);
  }
  for (T& x : p) sum += x = std::exp(x - largest);
  std::fill(y, y + dim, T(0));
  for (size_t u = 0; u < p.size(); ++u) {
    const T* v = values + (first + int64_t(u)) * stride;
    for (int j = 0; j < dim; ++j) y[j] += p[u] / sum * v[j];
  }
}

/// SiLU: x / (1 + e^-x), Elfwing et al. 2017, arXiv:1702.03118. GELU in its tanh form, Hendrycks & Gimpel
/// 2016, arXiv:1606.08415.
template <class T>
T activate(Act act, T x) {
  if (act == Act::silu) return x / (1 + std::exp(-x));
  return x / 2 * (1 + std::tanh(T(std::sqrt(2 / std::numbers::pi)) * (x + T(0.044715) * x * x * x)));
}

}  // namespace plumb::ops
