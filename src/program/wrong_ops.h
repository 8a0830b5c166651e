// The formulas of operations that a fault computes wrongly (program/wrong.h), beside the right ones of
// program/ops.h: whole nodes at a time, for some bugs mix tokens or heads. With the defaults of wrong.h they
// equal the right ones bit for bit.
#pragma once

#include <limits>

#include "base/half.h"
#include "base/pool.h"
#include "program/ops.h"

namespace plumb::ops {

/// A number in a format without blocks.
template <class T>
T rounded(Rounded r, T x) {
  switch (r) {
    case Rounded::f16:
      return T(rounded_to_half(float(x)));
    case Rounded::bf16:
      return T(bfloat16_to_float(float_to_bfloat16(float(x))));
    case Rounded::tf32: {
      const uint32_t bits = std::bit_cast<uint32_t>(float(x));
      return T(std::bit_cast<float>((bits + 0xfffu + (bits >> 13 & 1u)) & ~0x1fffu));
    }
    default:
      return x;
  }
}

/// Numbers in place; those of formats with blocks by 32 or 256 of them, the last block may be shorter.
template <class T>
void round_all(Rounded r, std::span<T> x) {
  if (r == Rounded::none) return;
  if (r != Rounded::q8 && r != Rounded::q4 && r != Rounded::q8_k) {
    for (T& v : x) v = rounded(r, v);
    return;
  }
  const T top = r == Rounded::q4 ? 7 : 127;
  const size_t length = r == Rounded::q8_k ? 256 : 32;
  for (size_t i = 0; i < x.size(); i += length) {
    const std::span<T> block = x.subspan(i, std::min(length, x.size() - i));
    T most = 0;
    for (T v : block) most = std::max(most, std::abs(v));
    const T d = r == Rounded::q8_k ? most / top : rounded(Rounded::f16, most / top);
    for (T& v : block) v = d == 0 ? T(0) : std::nearbyint(v / d) * d;
  }
}

/// What a node's rows [n, size] become, of which the first stands at `position`.
template <class T>
void apply(const WrongNode& w, int size, int64_t position, std::span<T> rows) {
  const int n = int(rows.size()) / size;
  const auto row = [&](int t) { return rows.subspan(size_t(t * size), size_t(size)); };
  for (T& x : rows) {
    x = x * T(w.factor) + T(w.add);
    if (w.softcap > 0) x = T(w.softcap) * std::tanh(x / T(w.softcap));
    if (w.limit > 0) x = std::clamp(x, T(-w.limit), T(w.limit));
  }
  for (int t = 0; t < n && w.sinusoids; ++t) {
    for (int i = 0; i < size; ++i) {  // Vaswani et al. 2017, section 3.5
      const double angle = double(position + t) * std::pow(10000.0, -double(i / 2 * 2) / size);
      row(t)[size_t(i)] += T(i % 2 ? std::cos(angle) : std::sin(angle));
    }
  }
  for (int t = 0; t < n && w.roll != 0; ++t)
    std::rotate(row(t).begin(), row(t).begin() + ((size - w.roll) % size + size) % size, row(t).end());
  for (int t = n - 1; t >= 0 && w.row_shift > 0; --t)
    std::copy_n(row(std::max(0, t - w.row_shift)).begin(), size, row(t).begin());
  for (int t = 0; t < n; ++t) round_all(w.round, row(t));
}

template <class T>
T activate_wrongly(WrongAct wrong, Act act, T x) {
  switch (wrong) {
    case WrongAct::right:
      return activate(act, x);
    case WrongAct::gelu_erf:
      return x / 2 * (1 + std::erf(x / std::sqrt(T(2))));
    case WrongAct::gelu_quick:
      return x / (1 + std::exp(T(-1.702) * x));
    case WrongAct::relu:
      return std::max(x, T(0));
    case WrongAct::sigmoid:
      return 1 / (1 + std::exp(-x));
    case WrongAct::identity:
      return x;
  }
  return x;
}

template <class T>
T glu(const Glu& op, T gate, T up) {
  const auto act = [&](T x) { return activate_wrongly(op.wrong.act, op.act, x); };
  switch (op.wrong.formula) {
    case GluFormula::act_gate_times_up:
      return act(gate) * up;
    case GluFormula::act_of_product:
      return act(gate * up);
    case GluFormula::act_gate:
      return act(gate);
    case GluFormula::act_up:
      return act(up);
    case GluFormula::act_both:
      return act(gate) * act(up);
    case GluFormula::act_gate_plus_up:
      return act(gate) + up;
  }
  return 0;
}

/// 1 / rms, or what a bug puts there; also takes the mean from x where the formula does.
template <class T>
T norm_factor(const RmsNorm& op, std::span<T> x, T mean_square_of_all) {
  const T n = T(x.size()), eps = T(op.eps);
  if (op.wrong.formula == NormFormula::centred) {
    T mean = 0;
    for (T v : x) mean += v;
    for (T& v : x) v -= mean / n;
  }
  const T sum = dot(x.data(), x.data(), int(x.size()));
  switch (op.wrong.formula) {
    case NormFormula::absent:
      return 1;
    case NormFormula::eps_outside:
      return 1 / (std::sqrt(sum / n) + eps);
    case NormFormula::multiplies:
      return std::sqrt(sum / n + eps);
    case NormFormula::sum:
      return 1 / std::sqrt(sum + eps);
    case NormFormula::all_rows:
      return 1 / std::sqrt(mean_square_of_all + eps);
    case NormFormula::mean_absolute: {
      T all = 0;
      for (T v : x) all += std::abs(v);
      return 1 / (all / n + eps);
    }
    default:
      return 1 / std::sqrt(sum / n + eps);
  }
}

/// Rows [n, shape.size()] in place; g [shape.dim].
template <class T>
void norm_wrongly(const RmsNorm& op, Shape shape, std::span<const T> g, std::span<T> rows) {
  const T all = dot(rows.data(), rows.data(), int(rows.size())) / T(rows.size());
  const size_t part = size_t(op.wrong.whole_row ? shape.size() : shape.dim);
  for (size_t at = 0; at < rows.size(); at += part) {
    const std::span<T> x = rows.subspan(at, part);
    for (int times = op.wrong.repeated ? 2 : 1; times > 0; --times) {
      const T r = norm_factor(op, x, all);
      for (T& v : x) v *= r;
    }
    if (op.wrong.formula == NormFormula::absent) continue;
    round_all(op.wrong.before_weight, x);
    for (size_t i = 0; i < part; ++i) {
      const T w = g[i % size_t(shape.dim)];
      switch (op.wrong.weight) {
        case NormWeight::once:
          x[i] *= w;
          break;
        case NormWeight::absent:
          break;
        case NormWeight::twice:
          x[i] *= w * w;
          break;
        case NormWeight::plus_one:
          x[i] *= w + 1;
          break;
        case NormWeight::minus_one:
          x[i] *= w - 1;
          break;
      }
    }
  }
}

/// One head at a position that a bug may have moved.
template <class T>
void rope_wrongly(const Rope& rope, const T* factors, double position, int dim, const T* x, T* y) {
  const WrongRope& w = rope.wrong;
  std::copy(x, x + dim, y);
  const int pairs = rope.dims / 2;
  for (int i = 0; i < int(w.turned * pairs); ++i) {
    const int f = w.slowest_first ? pairs - 1 - i : i;
    const Turn turn = rope_turn(rope, factors ? double(factors[f]) : 1.0, position, f);
    const double angle = rounded(w.angle, turn.angle) * (w.backwards ? -1 : 1);
    const T c = T(rounded(w.table, std::cos(angle) * turn.magnitude));
    const T s = T(rounded(w.table, std::sin(angle) * turn.magnitude));
    const int a = rope.style == RopeStyle::half ? i : 2 * i;
    const int b = rope.style == RopeStyle::half ? i + pairs : 2 * i + 1;
    y[a] = x[a] * c - x[b] * s;
    y[b] = x[a] * s + x[b] * c;
  }
}

}  // namespace plumb::ops
