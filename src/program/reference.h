// The reference interpreter: a Program executed node by node in f32 or f64. It is the specification; it is
// never optimised beyond sharing the decoded row of a matrix among the tokens of a call. It also computes
// what a fault makes of an operation (program/wrong.h).
#pragma once

#include <functional>
#include <map>
#include <span>
#include <vector>

#include "base/comm.h"
#include "base/pool.h"
#include "program/decoded.h"
#include "program/program.h"

namespace plumb {

/// Number formats that another engine's arithmetic may have: of every value, of what matrices multiply, of
/// cached keys and values.
struct Arithmetic {
  Rounded values = Rounded::none, inputs = Rounded::none, cache = Rounded::none;
  bool sums_from_end = false;  // matrix products add up from the last element to the first
};

/// Values inside attention: q k before scale and mask; after the softmax; the sums of values of each head.
enum class Inner { kq, probs, kqv };

/// One sequence in arithmetic T (float or double), with its keys and values unrounded.
template <class T>
class Reference {
 public:
  /// Called after each node with its rows, [tokens, shape.size()].
  using See = std::function<void(Value, std::span<const T> rows)>;

  /// What a call computes and shows.
  struct Task {
    Value until = -1;  // the last node
    See see = {};
    std::vector<bool> needed = {};  // by node; empty: all up to `until`
    /// Fills the rows of a node instead of computing it, and says so. Not beside a fault of Program::feed.
    std::function<bool(Value, std::span<T> rows)> give = {};
    /// Puts other rows in the place of those of a node, once they are computed and seen.
    std::function<void(Value, std::span<T> rows)> replace = {};
    bool last_logits_only = false;    // rows of the output before the last stay zero
    std::vector<bool> inner_of = {};  // by node: attention that shows its inner values, [tokens, heads, dim]
    std::function<void(Value, Inner, int64_t dim, std::span<const T>)> see_inner = {};  // dim: keys, or of v
  };

  /// `decoded` may be null, and may be shared.
  Reference(const Program& program, Pool& pool, DecodedWeights* decoded = nullptr)
      : p_(program), pool_(pool), decoded_(decoded) {}

  /// Runs the tokens at the positions after those already run, up to and including the node `until`.
  void run(std::span<const int> tokens, Value until, const See& see) {
    run(tokens, {.until = until, .see = see});
  }
  void run(std::span<const int> tokens, const Task& task);

  /// Computes `nodes`, ascending, from rows at hand: rows[v] is [tokens, shape.size()] of each input that is
  /// no such node, and receives those. The first token stands at position `first`, which must be 0 for
  /// attention.
  static void evaluate(const Program& program, Pool& pool, std::span<const int> tokens, int64_t first,
                       std::span<const Value> nodes, std::map<Value, std::vector<T>>& rows);

  /// Rounds the rows of a node in place before anything reads them: how other number formats behave.
  using Round = std::function<void(std::span<T> rows)>;
  void round_with(Round round) { round_ = std::move(round); }
  void set_arithmetic(const Arithmetic& a) { arithmetic_ = a; }
  /// With whom a rank's Program gathers.
  void set_comm(Comm* comm) { comm_ = comm; }

  int64_t length() const { return length_; }

 private:
  struct Cache {
    std::vector<T> k, v;      // [rows, n_head_kv * dim]
    int64_t prompt_rows = 0;  // of all calls that were no steps
  };
  struct Call;
  void run_call(std::span<const int> tokens, const Task& task);

  const Program& p_;
  Pool& pool_;
  DecodedWeights* decoded_;
  std::vector<Cache> cache_;  // by layer
  int64_t length_ = 0, prompt_ = 0;
  int last_token_ = 0;
  bool stepped_ = false;
  Round round_;
  Arithmetic arithmetic_;
  Comm* comm_ = nullptr;
};

extern template class Reference<float>;
extern template class Reference<double>;

}  // namespace plumb
