// A plan for each rank of a model and what runs them: every device has its part, and one thread asks all of
// them for a step before it asks any for the next, so that whoever gathers finds all parts there. With one
// device that is a plan and an executor. Tokens that each have a sequence of their own are captured as one
// graph of all devices.
#pragma once

#include <map>
#include <memory>

#include "cuda/executor.h"
#include "plan/split.h"

namespace plumb::cuda {

class Planned {
 public:
  /// `options` speak of the whole program's values; states: by rank.
  Planned(const Program& program, const PlanOptions& options, const std::vector<const SequenceState*>& states,
          bool together);
  ~Planned();

  void run(const Rows& rows);
  /// Copies the first `rows` rows of a value that the plan keeps, [rows, row_stride].
  std::span<const float> rows(Value v, int rows);
  /// Whether the last rows() of the output is known to be finite; if not, somebody has to look.
  bool finite() const { return delivered_ > 0 && *bad_ == 0; }

  /// Of the first rank.
  const Plan& plan() const { return ranks_[0]->plan; }

 private:
  struct Rank {
    Rank(const Program& program, int rank, int ranks, PlanOptions options, const SequenceState& state,
         bool together);
    const RankProgram of;
    const Plan plan;
    Executor executor;
  };
  Executor& first() const { return ranks_[0]->executor; }
  Context* context(size_t rank) const { return ranks_[rank]->executor.context(); }
  bool is_output(const Step& step) const;
  void steps(const Executor::Call& call);
  void follow(size_t rank, size_t other);
  void others_follow_first();
  void first_follows_others();
  Graph* capture(const Executor::Call& call);

  const Program& program_;
  const Api& api_;
  const bool together_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::map<Executor::Call, Graph*> graphs_;
  HostBuffer rows_;
  int delivered_ = 0;        // rows of the output that the last call's graph leaves in rows_
  uint32_t* bad_ = nullptr;  // behind them: whether any is infinite or NaN
};

}  // namespace plumb::cuda
