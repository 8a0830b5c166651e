// The reference interpreter: a Program executed node by node in f32 or f64. It is the specification; it is
// never optimised beyond sharing the decoded row of a matrix among the tokens of a call.
#pragma once

#include <functional>
#include <map>
#include <span>
#include <vector>

#include "base/pool.h"
#include "program/program.h"

namespace plumb {

/// One sequence in arithmetic T (float or double), with its keys and values unrounded.
template <class T>
class Reference {
 public:
  /// Called after each node with its rows, [tokens, shape.size()].
  using See = std::function<void(Value, std::span<const T> rows)>;

  Reference(const Program& program, Pool& pool) : p_(program), pool_(pool) {}

  /// Runs the tokens at the positions after those already run, up to and including the node `until`.
  void run(std::span<const int> tokens, Value until, const See& see);

  /// Computes `nodes`, ascending, from rows at hand: rows[v] is [tokens, shape.size()] of each input that is
  /// no such node, and receives those. The first token stands at position `first`, which must be 0 for
  /// attention.
  static void evaluate(const Program& program, Pool& pool, std::span<const int> tokens, int64_t first,
                       std::span<const Value> nodes, std::map<Value, std::vector<T>>& rows);

  /// Rounds the rows of a node in place before anything reads them: how other number formats behave.
  using Round = std::function<void(std::span<T> rows)>;
  void round_with(Round round) { round_ = std::move(round); }

  int64_t length() const { return length_; }

 private:
  struct Cache {
    std::vector<T> k, v;  // [length, n_head_kv * dim]
  };
  struct Call;

  const Program& p_;
  Pool& pool_;
  std::vector<Cache> cache_;  // by layer
  int64_t length_ = 0;
  Round round_;
};

extern template class Reference<float>;
extern template class Reference<double>;

}  // namespace plumb
