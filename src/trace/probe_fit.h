// The head of a probe file: a linear classifier of final hidden states, found by weighted ridge regression
// on targets of one and zero. Directions count, lengths do not: argmax does not see them.
#pragma once

#include <span>
#include <vector>

namespace plumb::trace {

/// A hidden state, scaled to length 1, and the class that it shall have.
struct ProbeSample {
  std::vector<double> state;
  int target;
  double weight = 1;
};

/// Scales to length 1; false where that is impossible: a number is not finite, or all are zero.
bool to_unit(std::span<double> state);

/// Rows [classes, width] of W that minimise sum of weight |W state - e_target|^2 + ridge |W|^2.
std::vector<double> fit_head(std::span<const ProbeSample> samples, int classes, int width, double ridge);

}  // namespace plumb::trace
