// A text as one vector: what the last norm gives for its tokens, pooled and divided by its length, as
// llama.cpp's server does with models that were not made for it.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "engine/runner.h"

namespace plumb {

enum class Pooling { mean, last };

class Embedding {
 public:
  /// `ids` is not empty. Throws Error "context.full" or "token.range".
  Embedding(const Model& model, const RunnerOptions& options, std::vector<int> ids, Pooling pooling);

  /// Reads at most `n` more tokens, n >= 1; true when none is left.
  bool read(int n);
  /// [n_embd], of length 1; once all is read.
  std::vector<float> vector() const;

 private:
  std::vector<int> ids_;
  Pooling pooling_;
  Value value_;
  std::unique_ptr<Runner> runner_;
  std::vector<double> sum_;
};

}  // namespace plumb
