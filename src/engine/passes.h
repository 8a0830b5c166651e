// One pass over a model's weights for rows of several sequences, on the CPU or on a CUDA device.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "cpu/executor.h"
#include "engine/runner.h"

namespace plumb {

/// The rows of a pass; those of one sequence lie side by side, at ascending positions.
struct Pass {
  std::vector<int> tokens, positions, sequences, wanted;  // wanted: rows whose logits are asked for
  std::vector<KvCache*> caches;                           // by row, with room for its position
};

class Passes {
 public:
  /// Of `count` sequences, on the backend of the options.
  static std::unique_ptr<Passes> make(const Model& model, const RunnerOptions& options, int count,
                                      int max_wanted);
  virtual ~Passes() = default;

  virtual KvCache new_cache() const = 0;
  virtual void run(const Pass& pass) = 0;
  /// Logits of the i-th wanted row, until the next run.
  virtual std::span<const float> row(int i) const = 0;
  virtual const Plan& plan() const = 0;
  /// Null: no more. Only the CPU's passes are timed.
  virtual void time_steps(std::vector<StepTime>* times) = 0;
};

}  // namespace plumb
