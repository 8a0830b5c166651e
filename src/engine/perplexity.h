// How well a model predicts a text, and how far its probabilities lie from those of another run.
//
// The convention is llama-perplexity's: the text's tokens are cut into chunks of n_ctx, each read by itself
// with the model's BOS in place of its first token; positions n_ctx / 2 to n_ctx - 2 are scored.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/runner.h"

namespace plumb {

/// The first position of a chunk that is scored, and how many are.
inline int first_scored(int n_ctx) { return n_ctx / 2; }
inline int rows_scored(int n_ctx) { return n_ctx - 1 - first_scored(n_ctx); }

/// Whole chunks of n_ctx tokens, at most `most` (-1: all). Throws Error "text.short" for fewer than two, as
/// one says nothing about the spread, unless exactly one is asked for.
std::vector<std::vector<int>> cut_text(std::span<const int> tokens, int n_ctx, int most);

/// Runs one chunk (BOS first if bos >= 0) from an empty context and shows the logits of every scored
/// position.
void score_chunk(const Model& model, const RunnerOptions& options, std::span<const int> chunk, int bos,
                 const Runner::See& see);

/// log of the sum of e^x, to f64 accuracy; the order of addition depends on the size alone.
double log_sum_exp(Pool& pool, std::span<const double> x);

/// Mean, spread and standard error of numbers that come one by one (Welford).
class Mean {
 public:
  void add(double x) {
    const double before = x - mean_;
    mean_ += before / double(++count_), squares_ += before * (x - mean_);
  }
  int64_t count() const { return count_; }
  double mean() const { return mean_; }
  double error() const;  // of the mean; 0 for fewer than two

 private:
  int64_t count_ = 0;
  double mean_ = 0, squares_ = 0;
};

/// What the rows of a base and of a run say about each other. All logarithms are natural.
class Divergence {
 public:
  /// Log probabilities of one position in both, and the token that came.
  void add(Pool& pool, std::span<const double> base, std::span<const double> run, int token);

  const Mean& divergence() const { return divergence_; }        // sum of p (log p - log q)
  const Mean& base_loss() const { return base_loss_; }          // -log p of the token
  const Mean& loss() const { return loss_; }                    // -log q of the token
  const Mean& difference() const { return difference_; }        // of these two
  const Mean& same_top() const { return same_top_; }            // 1 where both prefer the same token
  const Mean& moved_squared() const { return moved_squared_; }  // (q - p)^2 of the token
  /// Between neighbours in order linearly, share in [0, 1]; at least one row.
  double percentile(double share) const;

 private:
  Mean divergence_, base_loss_, loss_, difference_, same_top_, moved_squared_;
  mutable std::vector<double> each_;
  mutable bool sorted_ = false;
};

}  // namespace plumb
