// The reference interpreter: a Program executed node by node in f32 or f64. It is the specification; it is
// never optimised beyond sharing the decoded row of a matrix among the tokens of a call.
#pragma once

#include <functional>
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
};

extern template class Reference<float>;
extern template class Reference<double>;

}  // namespace plumb
