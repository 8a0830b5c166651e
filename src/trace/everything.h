// Everything that runs of an engine show of a prompt, whatever was printed of them: predictions of that serve
// every diagnosis of the same prompt, so that whoever prints other values of it, or mends the engine and
// prints again, waits for seconds.
#pragma once

#include "trace/predict.h"

namespace plumb::trace {

class Everything {
 public:
  /// None where the evidence has more than statistics of whole calls or of their last rows, and elements of
  /// the last logits: elements of other values, rows in between, generated ids.
  static std::optional<Everything> behind(const Evidence& evidence, const Program& program);

  /// Statistics of all values, call by call, and all last logits; of the logits alone where the evidence has
  /// no more.
  const Evidence& evidence() const { return all_; }

  /// A prediction for the evidence of which this is everything, up to that layer.
  Prediction select(const Evidence& evidence, const Prediction& everything, int depth, int n_layer) const;

 private:
  Evidence all_;
  std::vector<int> source_;  // by group of the evidence: the group here
};

}  // namespace plumb::trace
