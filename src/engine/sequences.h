// Several sequences of one model, advanced together by a fast plan: one call may hold the prompt of one, a
// draft of another and the next token of ten more. What a sequence gets is, bit for bit, what it gets alone
// (docs/numerics.md, and its exception, `--act f16`). Batched benchmarks, the server's batching and
// prompt-lookup speculation stand on it.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cpu/executor.h"
#include "cpu/kv_cache.h"
#include "engine/runner.h"

namespace plumb {

class Sequences {
 public:
  enum class Want { none, last, all };  // of whose tokens the logits are computed

  /// Tokens to append to one sequence.
  struct Piece {
    int sequence;
    std::span<const int> tokens;
    Want want = Want::last;
  };

  /// The logits [n_vocab] after the token at `position`; valid during the call.
  using See = std::function<void(int sequence, int64_t position, std::span<const float> logits)>;

  /// Wanted logits of one pass over the weights, valid during the call.
  struct Row {
    int sequence;
    int64_t position;
    std::span<const float> logits;
  };
  using SeePass = std::function<void(std::span<const Row>)>;

  /// `count` empty sequences of at most n_ctx tokens each, in the fast arithmetic; on a device only a whole
  /// model. At most `max_wanted` rows of logits come from one pass over the weights.
  Sequences(const Model& model, const RunnerOptions& options, int count, int max_wanted = 32);
  ~Sequences();

  int count() const;
  int64_t n_ctx() const;
  int64_t length(int sequence) const;

  /// Appends every piece (at most one per sequence) and shows the wanted rows in the order of the pieces.
  /// Passes over the weights hold up to n_ubatch tokens. Throws Error "context.full" or "token.range" with
  /// nothing appended; "run.cancelled" or "numeric.nonfinite" with what came before the pass appended.
  void decode(std::span<const Piece> pieces, const See& see);
  /// The same, showing all wanted rows of a pass together: for work that the threads share.
  void decode_passes(std::span<const Piece> pieces, const SeePass& see);

  /// Forgets what lies behind the first `length` tokens; they are as if the rest had never come.
  void truncate(int sequence, int64_t length);

  /// Hands out what a sequence holds, which is then empty.
  KvCache take(int sequence);
  /// The sequence goes on from the first `length` tokens of `held`, with which it shares all full pages.
  void start_from(int sequence, const KvCache& held, int64_t length);
  const KvCache& cache(int sequence) const;

  /// Adds the time of every step of the plan to `times` from now on; null: no more. `times` has plan().steps
  /// entries. Only on the CPU.
  void time_steps(std::vector<StepTime>* times);
  const Plan& plan() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb
