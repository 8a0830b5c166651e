// Two ways of computing one model, value by value: which is the first that differs?
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "engine/runner.h"

namespace plumb {

struct Disagreement {
  Value value = -1;
  double difference = 0;  // norm of the difference, relative to the second one's
};

/// Asks for the `difference` of the output, and only if it lies above `most`, from layer to layer down to the
/// one that differs first, then of that layer's values.
std::optional<Disagreement> first_disagreement(const Program& program, double most,
                                               const std::function<double(Value)>& difference);

/// The same of a model's runs with these two sets of options, over `tokens`.
std::optional<Disagreement> first_disagreement(const Model& model, const RunnerOptions& a,
                                               const RunnerOptions& b, std::span<const int> tokens,
                                               double most);

}  // namespace plumb
