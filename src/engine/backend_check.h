// Two ways of computing one model, value by value: which is the first that differs?
#pragma once

#include <cmath>
#include <functional>
#include <optional>
#include <span>

#include "engine/runner.h"

namespace plumb {

struct Disagreement {
  Value value = -1;
  double difference = 0;  // norm of the difference, relative to the second one's
};

/// Norm of a - b relative to b's: 0 for equal bits, infinite where one is not finite.
template <class T>
double relative_difference(std::span<const T> a, std::span<const T> b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = double(a[i]), y = double(b[i]);
    difference += (x - y) * (x - y), size += y * y;
  }
  if (difference == 0) return 0;
  const double relative = std::sqrt(difference / size);
  return std::isfinite(relative) ? relative : HUGE_VAL;
}

/// How far a device's values may lie from the CPU's, relative to their norm: not at all where bits are
/// promised (docs/numerics.md), else what f16 roundings leave, with room. `f16`: of activations too.
double most_difference(const Program& program, bool f16);

/// Asks for the `difference` of the output, and only if it lies above `most`, from layer to layer down to the
/// one that differs first, then of that layer's values.
std::optional<Disagreement> first_disagreement(const Program& program, double most,
                                               const std::function<double(Value)>& difference);

/// The same of a model's runs with these two sets of options, over `tokens`.
std::optional<Disagreement> first_disagreement(const Model& model, const RunnerOptions& a,
                                               const RunnerOptions& b, std::span<const int> tokens,
                                               double most);

}  // namespace plumb
