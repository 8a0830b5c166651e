#include "cpu/rope_table.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace plumb {
namespace {

constexpr double kPi = 3.141592653589793;
constexpr double kLn2 = 0.6931471805599453;

}  // namespace

double logarithm(double x) {
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172; the first term left out is
  // s^25 / 25 < 1e-20.
  int e = 0;
  double m = std::frexp(x, &e);
  if (m < 0.7071067811865476) m *= 2, --e;
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  return e * kLn2 + 2 * s * sum;
}

double power(double x, double y) {
  // 2^(y log2 x): the integer part goes into the exponent, |f| <= 1/2; Taylor of e^(f ln 2) to degree 18, remainder < 1e-24.
  const double t = y * (logarithm(x) / kLn2), n = std::nearbyint(t), r = (t - n) * kLn2;
  double sum = 1;
  for (int k = 18; k >= 1; --k) sum = 1 + r / k * sum;
  return std::ldexp(sum, int(n));
}

void sine_cosine(double x, double* sine, double* cosine) {
  // x = k pi/2 + r: pi/2 in three parts of 33 bits, of which k (30 bits) times a part loses nothing under fma.
  const double k = std::nearbyint(x * (2 / kPi));
  double r = std::fma(-k, 0x1.921fb544p0, x);
  r = std::fma(-k, 0x1.0b4611a6p-34, r);
  r = std::fma(-k, 0x1.3198a2e037073p-69, r);
  const double r2 = r * r;  // |r| <= pi/4; remainders r^17 / 17! and r^18 / 18! are below 1e-16
  double s = 0, c = 0;
  for (int i = 15; i >= 3; i -= 2) s = (s + 1) * -r2 / (i * (i - 1));
  for (int i = 16; i >= 2; i -= 2) c = (c + 1) * -r2 / (i * (i - 1));
  s = r + r * s;
  c = 1 + c;
  switch (static_cast<uint64_t>(static_cast<int64_t>(k)) % 4) {
    case 0: *sine = s, *cosine = c; break;
    case 1: *sine = c, *cosine = -s; break;
    case 2: *sine = -s, *cosine = -c; break;
    default: *sine = -c, *cosine = s; break;
  }
}

RopeFrequencies rope_frequencies(const Rope& rope, const float* factors) {
  const double dims = rope.dims;
  RopeFrequencies f{{}, rope.attn_factor};
  double low = 0, high = 0;
  if (rope.scaling == RopeScaling::yarn) {
    const auto pair_turning = [&](double turns) {
      return dims * logarithm(rope.original_context / (turns * 2 * kPi)) / (2 * logarithm(rope.freq_base));
    };
    low = std::max(0.0, std::floor(pair_turning(rope.beta_fast)));
    high = std::min(dims - 1, std::ceil(pair_turning(rope.beta_slow)));
    f.magnitude *= 1 + 0.1 * logarithm(rope.factor);
  }
  for (int i = 0; i < rope.dims / 2; ++i) {
    double angle = power(rope.freq_base, -2.0 * i / dims) / (factors ? double(factors[i]) : 1.0);
    if (rope.scaling == RopeScaling::linear) angle /= rope.factor;
    if (rope.scaling == RopeScaling::yarn) {
      const double ramp = std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      angle = angle / rope.factor * ramp + angle * (1 - ramp);
    }
    f.angle.push_back(angle);
  }
  return f;
}

void rope_row(const RopeFrequencies& rope, int pos, float* cosine, float* sine) {
  for (size_t i = 0; i < rope.angle.size(); ++i) {
    double s = 0, c = 0;
    sine_cosine(pos * rope.angle[i], &s, &c);
    cosine[i] = float(c * rope.magnitude);
    sine[i] = float(s * rope.magnitude);
  }
}

}  // namespace plumb
