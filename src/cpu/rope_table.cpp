#include "cpu/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/math.h"

namespace plumb {

RopeFrequencies rope_frequencies(const Rope& rope, const float* factors) {
  const double dims = rope.dims;
  RopeFrequencies f{{}, rope.attn_factor};
  double low = 0, high = 0;
  if (rope.scaling == RopeScaling::yarn) {
    const auto pair_turning = [&](double turns) {
      return dims * logarithm(rope.original_context / (turns * 2 * std::numbers::pi)) /
             (2 * logarithm(rope.freq_base));
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
