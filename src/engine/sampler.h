// From logits to a token: pure filters in a chain, then a draw from a counter-based generator keyed by (seed,
// sequence, position), so that neither batching nor branching changes a text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/sampler_filters.h"

namespace plumb {

struct SamplerOptions {
  uint64_t seed = 0;
  double temperature = 0.8;  // <= 0: greedy
  int top_k = 40;            // <= 0: all
  double top_p = 0.95;       // >= 1: all
  double min_p = 0.05;       // <= 0: all
  double repeat_penalty = 1, presence_penalty = 0, frequency_penalty = 0;
  int repeat_last_n = 64;      // 0: none, -1: the whole context
  double typical_p = 1;        // >= 1: all
  double top_n_sigma = -1;     // <= 0: all
  double xtc_probability = 0;  // <= 0: never
  double xtc_threshold = 0.1;  // > 0.5: never
  double dry_multiplier = 0;   // <= 0: off
  double dry_base = 1.75;
  int dry_allowed_length = 2, dry_penalty_last_n = 64;
  std::vector<std::string> dry_sequence_breakers = {"\n", ":", "\"", "*"};
  double dynatemp_range = 0, dynatemp_exponent = 1;  // <= 0: the same temperature everywhere
  int mirostat = 0;                                  // 1, 2: its version, in the place of the chain
  double mirostat_tau = 5, mirostat_eta = 0.1;
  std::vector<std::string> chain = {"penalties", "dry",   "top_n_sigma", "top_k",      "typ_p",
                                    "top_p",     "min_p", "xtc",         "temperature"};
  std::vector<std::pair<int, double>> logit_bias = {};
};

/// Names that a chain may hold.
std::span<const std::string_view> sampler_names();

/// Throws Error "sampler.value" for a parameter that is not finite or outside its range, or an unknown name
/// in the chain.
void check(const SamplerOptions& options);

class Sampler {
 public:
  /// `tokenizer`, in which `dry` looks for its sequence breakers, must outlive this; null: it finds none.
  Sampler(const SamplerOptions& options, uint64_t sequence, const Tokenizer* tokenizer = nullptr);

  /// The id at `position` of the text, given the logits there and the ids before it. Ties go to the lowest
  /// id. `allowed` has one bit per id (GrammarState::allowed); the others are left out before the chain.
  /// Empty: all are allowed. Mirostat alone remembers something from one call to the next.
  int choose(std::span<const float> logits, std::span<const int> history, uint64_t position,
             std::span<const uint64_t> allowed = {});

  /// What the last choice was drawn from, likeliest first: ids and probabilities.
  std::vector<std::pair<int, double>> drawn_from() const;

 private:
  size_t first_cut() const;
  Candidates gather(std::span<const float> logits, std::span<const uint64_t> allowed) const;
  void apply(std::string_view filter, std::span<const int> history, uint64_t position);
  std::pair<size_t, double> draw(uint64_t position) const;

  SamplerOptions options_;
  uint64_t sequence_;
  const Tokenizer* tokenizer_;
  double surprise_;       // of Mirostat: the most that a token may have, in bits
  Candidates left_ = {};  // sorted once an id has been chosen
};

/// A number in [0, 1) that depends on the three keys alone: splitmix64 (Steele, Lea & Flood 2014) over each
/// in turn.
double counter_uniform(uint64_t seed, uint64_t sequence, uint64_t position);

/// The id of the largest logit, the lowest among equals.
int argmax(std::span<const float> logits);

}  // namespace plumb
