// How likely a token was, and what else might have come: natural logarithms of the model's own probabilities,
// before any sampler touched them, or those that a sampler drew from.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/pool.h"

namespace plumb {

struct ScoredToken {
  int id = -1;
  bool scored = false;  // the first token of a text has no probability
  double logprob = 0;
  double margin = 0;                             // the largest logit less the largest of the others
  std::vector<std::pair<int, double>> top = {};  // likeliest first, ties by id
};

/// Scores `id` against the logits before it, with the `top` likeliest. The sum over the vocabulary has
/// one order of addition whatever the number of threads; as `plumb perplexity` and `plumb logits` compute it.
ScoredToken score_token(Pool& pool, std::span<const float> logits, int id, int top);

/// The same of what a sampler left (Sampler::drawn_from); -infinity for an id that it did not leave.
ScoredToken drawn_token(const std::vector<std::pair<int, double>>& left, int id, int top);

/// What tells rows of logits apart bit by bit: the first 8 bytes of the SHA-256 of their f32, little-endian.
uint64_t hash_logits(std::span<const float> logits);

}  // namespace plumb
