// A Plan on a device: each step becomes one launch or a few. Tokens, positions and pages are read from device
// memory, so that a graph of the launches (planned.h) serves every call of that many tokens and a range of
// contexts.
#pragma once

#include <map>
#include <set>
#include <span>
#include <vector>

#include "cuda/pages.h"
#include "cuda/weights.h"
#include "plan/plan.h"

namespace plumb::cuda {

/// What a plan's sequences have on the device besides weights.
struct SequenceState {
  const Api& api;
  Context* context;
  const Weights& weights;
  int64_t n_ctx;
  bool kv_f32, f32, f16;  // f16: many tokens in halves
  const PageLayout& layout;
  const PageTables& tables;
};

/// The rows of one call. Those of one sequence lie side by side, at ascending positions without a gap.
struct Rows {
  std::span<const int> tokens, positions;
  std::span<const int> sequences;  // empty: all of the first
  std::span<const int> wanted;     // rows whose logits are asked for, ascending
};

class Executor {
 public:
  /// Keeps references to both. `together`: every row of a call has a sequence of its own, and the wanted
  /// steps compute all rows if any is wanted.
  Executor(const Plan& plan, const SequenceState& state, bool together);

  struct Call {
    int n = 0, wanted = 0, chunks = 0;  // chunks: of 256 keys, that the launches cover
    int runs = 0, longest = 0;          // rows of one sequence beside each other
    auto operator<=>(const Call&) const = default;
  };
  Call upload(const Rows& rows);
  /// Launches a step of the plan.
  void run(const Step& step, const Call& call);
  /// All ranks' executors, whose parts this one's gathers read.
  void gather_from(std::vector<const Executor*> ranks) { ranks_ = std::move(ranks); }

  /// Null where the plan keeps no rows of v.
  float* at(Value v) const;
  int64_t stride(Value v) const { return v < 0 ? 0 : row_stride(p_.shape(v).size()); }
  int max_chunks() const { return int((state_.n_ctx + kAttentionChunk - 1) / kAttentionChunk); }
  Context* context() const { return state_.context; }

 private:
  void operator()(const RopeTableStep&, const Step&, const Call&) {}
  void operator()(const EmbedStep& s, const Step&, const Call& c);
  void operator()(const RowStep& s, const Step& step, const Call& c);
  void operator()(const LinearStep& s, const Step& step, const Call& c);
  void operator()(const HeadsStep& s, const Step&, const Call& c);
  void operator()(const AttentionStep& s, const Step&, const Call& c);
  void operator()(const GluStep& s, const Step&, const Call& c);
  void operator()(const TapStep&, const Step&, const Call&) {}  // the engine asks for none
  void operator()(const GatherStep& s, const Step& step, const Call& c);

  void find_joined_norms();
  void find_fused_heads();
  void make_part(const HeadsStep::Part& part, int layer, HeadsOp::Part& to) const;
  void make_rope_tables();
  void make_scratch();
  void one_token(const LinearStep& s, const LinearOp& base);
  void many_tokens(const LinearStep& s, LinearOp op);
  void convert(const LinearStep& s, LinearOp& op);
  void glu(Act act, const float* gate, const float* up, Value out, int n);
  bool one_kernel(const LinearStep& s) const;
  bool in_halves(const LinearStep& s) const;
  bool few(const LinearStep& s, int n) const;
  void all_parts(const LinearStep& s, LinearOp op);
  void check(const char* error, const Step& step) const;

  int* ids(int part) const { return ids_.ints() + part * plan_.max_tokens; }
  bool observing() const {
    return !together_ && plan_.max_tokens > 1 && plan_.max_wanted == plan_.max_tokens;
  }

  const Plan& plan_;
  const Program& p_;
  const SequenceState& state_;
  const Api& api_;
  const bool together_;
  DeviceBuffer arena_, ids_;  // ids: parts of max_tokens each, in the order of Ids
  enum Ids : int { kTokens, kPositions, kSequences, kWanted, kRuns, kRunRows, kIds };
  DeviceBuffer
      attended_;  // what attention gives that makes its heads, as their places in the arena may be its own
  std::set<Value> moved_;  // to attended_
  DeviceBuffer x16_, x16_scale_, codes_, gate_, up_, partial_, counter_;
  std::vector<DeviceBuffer> tables_;        // by RopeTableStep
  std::map<Value, const RowStep*> joined_;  // norms that the matrices behind them compute, by output
  std::map<const AttentionStep*, const HeadsStep*> fused_;  // heads that attention makes itself
  std::set<const HeadsStep*> made_;                         // those heads
  std::vector<const Executor*> ranks_;
  const char* error_ = nullptr;
};

}  // namespace plumb::cuda
