// The filters of a sampler's chain: each changes the candidates' logits, or drops some of them but never all.
// None of them looks at anything but its arguments. Definitions as llama.cpp has them, so that settings mean
// the same.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace plumb {

struct Candidate {
  int id;
  double logit;
};
using Candidates = std::vector<Candidate>;

/// Whether `a` is likelier; among equals the lower id.
bool before(const Candidate& a, const Candidate& b);

/// e^(logit - largest) for sorted candidates, unnormalised.
std::vector<double> weights(const Candidates& sorted);

/// The surprise of a probability: -log2 p.
double bits(double p);

/// Keeps the k likeliest, sorted.
void keep_best(Candidates& c, size_t k);

/// Keeps the likeliest whose probabilities sum to p (Holtzman et al. 2019, arXiv:1904.09751).
void top_p(Candidates& c, double p);

/// Keeps those of at least p times the likeliest one's probability (arXiv:2407.01082).
void min_p(Candidates& c, double p);

/// Keeps those whose surprise is nearest to the expected one, until they sum to p (Meister et al. 2022,
/// arXiv:2202.00666).
void typical_p(Candidates& c, double p);

/// Keeps logits of at least the largest less n standard deviations (Tang et al. 2024, arXiv:2411.07641).
void top_n_sigma(Candidates& c, double n);

/// Drops all but the least likely of those with that probability or more
/// (text-generation-webui#6335).
void exclude_top_choices(Candidates& c, double threshold);

/// Divides by t.
void temperature(Candidates& c, double t);

/// Divides by t - range for a certain choice up to t + range for an even one: in between by the entropy, as a
/// share of the largest possible, to the power of `exponent`.
void dynamic_temperature(Candidates& c, double t, double range, double exponent);

struct DryOptions {
  double multiplier, base;
  int allowed_length;
  std::span<const std::string> breakers;
};

/// Takes multiplier * base^(n - allowed_length) from each id that would make a text of n ids at the end of
/// `history`, in which no breaker lies, repeat what stands before (text-generation-webui#5677). Repeats
/// shorter than allowed_length cost nothing. Linear in the history.
void do_not_repeat(Candidates& c, std::span<const int> history, const DryOptions& options,
                   const Tokenizer* tokenizer);

/// Keeps those with a surprise of at most that many bits, and the likeliest (Basu et al. 2021,
/// arXiv:2007.14966; version 2 as known from its authors' code).
void mirostat_2(Candidates& c, double surprise);

/// The same by an estimate of Zipf's exponent from the 100 likeliest of `vocabulary` ids (algorithm 1 there).
void mirostat_1(Candidates& c, double surprise, int vocabulary);

}  // namespace plumb
