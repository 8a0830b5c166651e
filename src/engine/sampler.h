// From logits to a token: pure filters in a chain, then a draw from a counter-based generator keyed by (seed,
// sequence, position), so that neither batching nor branching changes a text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

struct SamplerOptions {
  uint64_t seed = 0;
  double temperature = 0.8;  // <= 0: greedy
  int top_k = 40;            // <= 0: all
  double top_p = 0.95;       // >= 1: all
  double min_p = 0.05;       // <= 0: all
  double repeat_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int repeat_last_n = 64;  // 0: none, -1: the whole context
  std::vector<std::string> chain = {"penalties", "top_k", "top_p", "min_p", "temperature"};
  std::vector<std::pair<int, double>> logit_bias = {};
};

/// Names that a chain may hold.
std::span<const std::string_view> sampler_names();

/// Throws Error "sampler.value" for a parameter that is not finite or outside its range, or an unknown name
/// in the chain.
void check(const SamplerOptions& options);

struct Candidate {
  int id;
  double logit;
};

class Sampler {
 public:
  Sampler(const SamplerOptions& options, uint64_t sequence);

  /// The id at `position` of the text, given the logits there and the ids before it. Ties go to the lowest
  /// id. `allowed` has one bit per id (GrammarState::allowed); the others are left out before the chain.
  /// Empty: all are allowed.
  int choose(std::span<const float> logits, std::span<const int> history, uint64_t position,
             std::span<const uint64_t> allowed = {}) const;

 private:
  size_t first_cut() const;
  void penalise(std::vector<Candidate>& c, std::span<const int> history) const;
  void apply(std::string_view filter, std::vector<Candidate>& c, std::span<const int> history) const;

  SamplerOptions options_;
  uint64_t sequence_;
};

/// A number in [0, 1) that depends on the three keys alone: splitmix64 (Steele, Lea & Flood 2014) over each
/// in turn.
double counter_uniform(uint64_t seed, uint64_t sequence, uint64_t position);

/// The id of the largest logit, the lowest among equals.
int argmax(std::span<const float> logits);

}  // namespace plumb
