// A Plan on a device: each step becomes one launch or a few. A plan for one token is captured as a graph;
// token, position and lengths are read from device memory, so that one graph serves every token of a range of
// contexts.
#pragma once

#include <map>
#include <set>
#include <span>
#include <vector>

#include "cuda/weights.h"
#include "plan/plan.h"

namespace plumb::cuda {

/// What a sequence keeps on the device besides weights.
struct SequenceState {
  const Api& api;
  Context* context;
  const Weights& weights;
  int64_t n_ctx;
  bool kv_f32, f32, f16;  // f16: many tokens in halves
  struct Layer {
    DeviceBuffer k, v;  // [n_ctx][heads][dim]
  };
  std::vector<Layer> layers;
};

class Executor {
 public:
  /// Keeps references to both.
  Executor(const Plan& plan, const SequenceState& state);
  ~Executor();

  /// Runs tokens at consecutive positions from `first`. Rows of the wanted steps: the last token, or none.
  void run(std::span<const int> tokens, int64_t first, bool want);

  /// Copies the first `rows` rows of a value that the plan keeps, [rows, row_stride].
  std::span<const float> rows(Value v, int rows);

 private:
  struct Call {
    int n = 0, wanted = 0, chunks = 0;  // chunks: of 256 keys, that the launches cover
  };
  void steps(const Call& call);
  void operator()(const RopeTableStep&, const Step&, const Call&) {}
  void operator()(const EmbedStep& s, const Step&, const Call& c);
  void operator()(const RowStep& s, const Step& step, const Call& c);
  void operator()(const LinearStep& s, const Step& step, const Call& c);
  void operator()(const HeadsStep& s, const Step&, const Call& c);
  void operator()(const AttentionStep& s, const Step&, const Call& c);
  void operator()(const GluStep& s, const Step&, const Call& c);
  void operator()(const TapStep&, const Step&, const Call&) {}  // the engine asks for none

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
  void all_parts(const LinearStep& s, LinearOp op);
  float* at(Value v) const;
  int64_t stride(Value v) const { return v < 0 ? 0 : row_stride(p_.shape(v).size()); }
  int max_chunks() const { return int((state_.n_ctx + kAttentionChunk - 1) / kAttentionChunk); }
  void check(const char* error, const Step& step) const;

  const Plan& plan_;
  const Program& p_;
  const SequenceState& state_;
  const Api& api_;
  DeviceBuffer arena_, ids_;  // ids: tokens [max_tokens], positions [max_tokens], wanted [max_tokens]
  DeviceBuffer
      attended_;  // what attention gives that makes its heads, as their places in the arena may be its own
  std::set<Value> moved_;  // to attended_
  DeviceBuffer x16_, x16_scale_, codes_, gate_, up_, partial_, counter_;
  std::vector<DeviceBuffer> tables_;        // by RopeTableStep
  std::map<Value, const RowStep*> joined_;  // norms that the matrices behind them compute, by output
  std::map<const AttentionStep*, const HeadsStep*> fused_;  // heads that attention makes itself
  std::set<const HeadsStep*> made_;                         // those heads
  std::map<int, Graph*> graphs_;                            // by chunks
  HostBuffer rows_;
  const char* error_ = nullptr;
};

}  // namespace plumb::cuda
