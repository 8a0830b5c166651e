// The steps of a Plan on the CPU: how each is cut into units and which kernels a unit calls.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>

#include "cpu/executor.h"

namespace plumb {

struct Steps {
  static constexpr int kUnitRows =
      512;  // at most, of a matrix, for up to kTokenTile tokens; 32 rows for more

  /// Up to so many rows every thread prepares the input of a matrix for itself, which takes less than a
  /// barrier.
  static constexpr int kFewRows = 8;

  /// Floats of one result of a unit in scratch.
  static int64_t work_floats(const Plan& plan) {
    return std::max(kTokenTile * kUnitRows, plan.max_tokens * 32);
  }

  /// Bytes of a thread's scratch, and of the rounded input that threads share, for the largest step.
  static int64_t scratch_bytes(const Plan& plan);
  static int64_t rounded_bytes(const Plan& plan);

  Steps(const Plan& plan_, const CpuWeights& weights_, const Kernels& kernels_, Pool& pool_)
      : plan(plan_), p(*plan_.program), weights(weights_), k(kernels_), pool(pool_) {}

  /// Units of work of step i for the current batch; from shapes only.
  int units(size_t i) const { return count(plan.steps[i]); }
  void run(size_t i, int unit, int thread);

  /// Rows of the input that step i prepares before its units; 0: none. Either every thread prepares all of
  /// them for itself, or the threads share them and wait for each other.
  int rows_to_prepare(size_t i) const;
  bool prepares_alone(size_t i) const { return rows_to_prepare(i) <= kFewRows; }
  void prepare(size_t i, int row, int thread);

  /// Tokens that one attention unit takes at most: as many as fill the kernel's rows.
  static int attention_tokens(const Program& p, const AttentionStep& s);

  /// Up to so many tokens, attention is cut into units of one token, kv head and chunk.
  static constexpr int kSplitTokens = 8;

  /// What splitting attention needs for any layer of the plan; once.
  void size_attention();
  /// Makes room for the partial results of the batch's attention; before the threads start.
  void prepare_attention();

  const Plan& plan;
  const Program& p;
  const CpuWeights& weights;
  const Kernels& k;
  Pool& pool;
  const Batch* batch = nullptr;
  std::exception_ptr failure;  // of the current batch: a tap's, or of other ranks
  Buffer arena, scratch, rounded;
  bool huge = false;           // their pages, once a batch has had many tokens
  Buffer partials;             // of attention: [token, kv head, chunk]
  int chunks = 0;              // of the longest sequence of the batch, if attention is split
  int most_kv_heads = 0;       // of any layer
  int64_t partial_stride = 0;  // floats of a token's kv head and chunk: the most of any layer
  std::unique_ptr<std::atomic<int>[]> chunks_done;  // [token, kv head]; zero between steps
  int64_t scratch_stride = 0;
  std::vector<RopeFrequencies> frequencies;
  std::unique_ptr<FaultFlag[]> faults;  // by step

 private:
  struct Unit {  // what a step's function needs to know besides its own fields
    size_t step;
    int index;
    int thread;
    uint8_t* scratch;
    bool wanted;
  };
  int n(bool wanted) const { return int(wanted ? batch->wanted.size() : batch->tokens.size()); }
  Rows rows(Value v) const;
  const float* f32(Value v) const;
  float* table(int t) const { return reinterpret_cast<float*>(arena.data() + plan.tables[size_t(t)]); }
  int64_t stride(Value v) const { return v < 0 ? 0 : row_stride(p.shape(v).size()); }

  // A thread's scratch in a matrix step: [rounded rows][one row in f32][results][what the kernel needs].
  struct LinearScratch {
    int64_t row, work, kernel, end;
  };
  static LinearScratch linear_scratch(const Plan& plan, const LinearStep& s);
  X8 rounded_input(const LinearStep& s, bool wanted, int thread) const;
  RowArgs row_args(const RowStep& s) const;

  int groups_of(const LinearStep::Part& part) const;  // of 16 rows, in pairs
  int units_of(const LinearStep& s, const LinearStep::Part& part, bool wanted) const;
  int count(const Step& step) const;

  void operator()(const RopeTableStep& s, const Unit& u);
  void operator()(const EmbedStep& s, const Unit& u);
  void operator()(const RowStep& s, const Unit& u);
  void operator()(const LinearStep& s, const Unit& u);
  void operator()(const HeadsStep& s, const Unit& u);
  void operator()(const AttentionStep& s, const Unit& u);
  void operator()(const GluStep& s, const Unit& u);
  void operator()(const TapStep& s, const Unit& u);
  void operator()(const GatherStep& s, const Unit& u);

  struct Block {  // of a matrix: groups of 16 rows
    int first_group, groups;
  };
  // y = x W^T over the block's rows, plus bias, plus residual, where there are any.
  void matmul(const LinearStep& s, const LinearStep::Part& part, const Unit& u, Block block, Rows y,
              Rows residual);
  void decoded_matmul(const WeightRef& w, MatmulArgs a, int first_row);
  int attention_tile(const AttentionStep& s) const;
  AttentionArgs attention_args(const AttentionStep& s, const Unit& u, int kv_head, int first,
                               const KvHead& head) const;
  void attend(const AttentionStep& s, const Unit& u, int kv_head, int first, int count, float* out,
              int64_t out_stride);
  void attend_chunk(const AttentionStep& s, const Unit& u);
};

}  // namespace plumb
