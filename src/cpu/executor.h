// Runs Plans on CPU threads: all of them walk one list of steps, claiming units of work, with a barrier after
// each step. How the work is cut never changes a bit (docs/numerics.md).
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/comm.h"
#include "base/pool.h"
#include "cpu/kernels.h"
#include "cpu/kv_cache.h"
#include "cpu/rope_table.h"
#include "cpu/weights.h"
#include "plan/plan.h"

namespace plumb {

/// Rows of a tapped value, while the step that shows them runs: of the call's tokens, or of its wanted ones.
struct TapRows {
  Value value;
  const float* data;  // [rows, stride]
  int rows;
  int64_t stride;
  bool wanted;
};
using Tap = std::function<void(const TapRows&)>;

/// The rows of one call. Only attention reads `cache` and `pos`: rows of several sequences may stand beside
/// each other; the rows of one sequence ascend by position without a gap.
struct Batch {
  std::span<const int> tokens;
  std::span<const int> positions;
  std::span<KvCache* const> caches;  // by row; room for the position has been reserved
  std::span<const int> wanted;       // rows whose logits are asked for, ascending
  const Tap* tap = nullptr;          // is shown the plan's taps, on any thread but one at a time
  Comm* comm = nullptr;              // with whom a rank's plan gathers, on any thread but one at a time
};

/// What a step has cost so far.
struct StepTime {
  double seconds = 0;
  int64_t calls = 0;  // in which it had any work
  int64_t rows = 0;   // tokens, or wanted rows
};

class CpuExecutor {
 public:
  /// Keeps references to all; the plan is bound to buffers of this executor.
  CpuExecutor(const Plan& plan, const CpuWeights& weights, Isa isa, Pool& pool);
  ~CpuExecutor();

  /// Throws Error "numeric.nonfinite" with the first step that met a value that is not finite, or what the
  /// tap or `comm` threw, which is then asked no more.
  void run(const Batch& batch);

  /// Row i of a value after run(): of the i-th token, or of the i-th wanted one for the logits. Only for
  /// values that the plan keeps (the output, or those observed).
  std::span<const float> row(Value v, int i) const;

  /// Adds the cost of every step to `times` from the next run on; null: no more.
  void time_steps(std::vector<StepTime>* times);

 private:
  struct Bound;
  std::unique_ptr<Bound> bound_;
};

}  // namespace plumb
