#include "engine/sampler.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "base/error.h"
#include "base/math.h"
#include "text/grammar.h"

namespace plumb {
namespace {

constexpr std::string_view kNames[] = {"penalties", "dry",   "top_n_sigma", "top_k",      "typ_p",
                                       "top_p",     "min_p", "xtc",         "temperature"};
constexpr uint64_t kXtc = uint64_t(1) << 63;  // draws of its own, beside those of the sequences

bool any_above(std::span<const float> logits, float least) {
  int any = 0;  // no branch: the compiler takes several at a time
  for (const float x : logits) any |= int(x > least);
  return any != 0;
}

// The k best of the allowed logits, sorted: one pass, as few are better than the k-th best so far.
Candidates best_of(std::span<const float> logits, std::span<const uint64_t> allowed, size_t k) {
  constexpr size_t kBlock = 64;
  Candidates heap;  // the worst on top
  heap.reserve(k + 1);
  float least = -std::numeric_limits<float>::infinity();
  for (size_t from = 0; from < logits.size(); from += kBlock) {
    const size_t end = std::min(from + kBlock, logits.size());
    if (heap.size() == k && !any_above(logits.subspan(from, end - from), least)) continue;
    for (size_t i = from; i < end; ++i) {
      // Ids ascend, so among equals those found first stay.
      if (heap.size() == k && logits[i] <= least) continue;
      if (!allowed.empty() && !is_allowed(allowed, int(i))) continue;
      heap.push_back({int(i), double(logits[i])});
      std::push_heap(heap.begin(), heap.end(), before);
      if (heap.size() > k) {
        std::pop_heap(heap.begin(), heap.end(), before);
        heap.pop_back();
      }
      least = float(heap.front().logit);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

void in_range(const char* name, double value, double min, double max) {
  if (std::isfinite(value) && value >= min && value <= max) return;
  throw Error({.code = "sampler.value",
               .expected = fmt::format("a number from {} to {}", min, max),
               .found = fmt::format("{}", value),
               .where = {.key = name}});
}

// Whether any penalty changes logits.
bool penalises(const SamplerOptions& o) {
  return o.repeat_penalty != 1 || o.presence_penalty != 0 || o.frequency_penalty != 0;
}

bool repeats_cost(const SamplerOptions& o) { return o.dry_multiplier > 0 && o.dry_penalty_last_n != 0; }

// Whether the largest logit alone decides, unless a grammar has a say.
bool greedy(const SamplerOptions& o) {
  return o.temperature <= 0 && !penalises(o) && o.logit_bias.empty() && !repeats_cost(o) &&
         o.xtc_probability <= 0 && o.typical_p >= 1;
}

std::span<const int> last_of(std::span<const int> history, int n) {
  return n < 0 ? history : history.last(std::min(history.size(), size_t(n)));
}

// Keskar et al. 2019, arXiv:1909.05858, section 4.1, once per distinct id; presence and frequency as OpenAI
// defines them.
void penalise(Candidates& c, std::span<const int> history, const SamplerOptions& o) {
  if (!penalises(o)) return;
  std::unordered_map<int, int> seen;
  for (int id : last_of(history, o.repeat_last_n)) ++seen[id];
  for (Candidate& x : c) {
    const auto it = seen.find(x.id);
    if (it == seen.end()) continue;
    x.logit = x.logit > 0 ? x.logit / o.repeat_penalty : x.logit * o.repeat_penalty;
    x.logit -= it->second * o.frequency_penalty + o.presence_penalty;
  }
}

}  // namespace

std::span<const std::string_view> sampler_names() { return kNames; }

void check(const SamplerOptions& o) {
  in_range("--temp", o.temperature, -1, 1000);
  in_range("--top-p", o.top_p, 0, 1);
  in_range("--min-p", o.min_p, 0, 1);
  in_range("--repeat-penalty", o.repeat_penalty, 1e-3, 1000);
  in_range("--presence-penalty", o.presence_penalty, -1000, 1000);
  in_range("--frequency-penalty", o.frequency_penalty, -1000, 1000);
  in_range("--repeat-last-n", o.repeat_last_n, -1, 1 << 30);
  in_range("--typical", o.typical_p, 0, 1);
  in_range("--top-nsigma", o.top_n_sigma, -1, 1000);
  in_range("--xtc-probability", o.xtc_probability, 0, 1);
  in_range("--xtc-threshold", o.xtc_threshold, 0, 1);
  in_range("--dry-multiplier", o.dry_multiplier, 0, 1000);
  in_range("--dry-base", o.dry_base, 0, 1000);
  in_range("--dry-allowed-length", o.dry_allowed_length, 0, 1 << 30);
  in_range("--dry-penalty-last-n", o.dry_penalty_last_n, -1, 1 << 30);
  in_range("--dynatemp-range", o.dynatemp_range, 0, 1000);
  in_range("--dynatemp-exp", o.dynatemp_exponent, 0, 1000);
  in_range("--mirostat", o.mirostat, 0, 2);
  in_range("--mirostat-ent", o.mirostat_tau, 0, 1000);
  in_range("--mirostat-lr", o.mirostat_eta, 0, 1000);
  for (const auto& [id, bias] : o.logit_bias) in_range("--logit-bias", bias, -1e6, 1e6);
  for (const std::string& name : o.chain) {
    if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames)) continue;
    throw Error({.code = "sampler.value",
                 .expected = fmt::format("names out of {}", fmt::join(kNames, ", ")),
                 .found = printable(name),
                 .where = {.key = "--samplers"}});
  }
}

double counter_uniform(uint64_t seed, uint64_t sequence, uint64_t position) {
  return double(mix(mix(mix(seed) ^ sequence) ^ position) >> 11) * 0x1p-53;
}

int argmax(std::span<const float> logits) {
  return int(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

Sampler::Sampler(const SamplerOptions& options, uint64_t sequence, const Tokenizer* tokenizer)
    : options_(options), sequence_(sequence), tokenizer_(tokenizer), surprise_(2 * options.mirostat_tau) {}

// How many candidates the chain's first filter keeps, where these are the largest logits; 0: not known yet.
size_t Sampler::first_cut() const {
  const SamplerOptions& o = options_;
  if (greedy(o)) return 1;
  if (penalises(o) || repeats_cost(o) || !o.logit_bias.empty() || o.mirostat > 0) return 0;
  for (const std::string& filter : o.chain) {
    if (filter == "top_k" && o.top_k > 0) return size_t(o.top_k);
    const bool idle = filter == "penalties" || filter == "dry" || filter == "top_k" ||
                      (filter == "top_n_sigma" && o.top_n_sigma <= 0);
    if (!idle) break;
  }
  return 0;
}

Candidates Sampler::gather(std::span<const float> logits, std::span<const uint64_t> allowed) const {
  if (const size_t few = first_cut(); few > 0 && few < logits.size()) return best_of(logits, allowed, few);
  Candidates c(logits.size());
  for (size_t i = 0; i < c.size(); ++i) c[i] = {int(i), double(logits[i])};
  for (const auto& [id, bias] : options_.logit_bias) {
    if (id >= 0 && size_t(id) < c.size()) c[size_t(id)].logit += bias;
  }
  if (!allowed.empty()) std::erase_if(c, [&](const Candidate& x) { return !is_allowed(allowed, x.id); });
  return c;
}

void Sampler::apply(std::string_view filter, std::span<const int> history, uint64_t position) {
  const SamplerOptions& o = options_;
  Candidates& c = left_;
  if (filter == "penalties") penalise(c, history, o);
  if (filter == "dry" && repeats_cost(o)) {
    do_not_repeat(c, last_of(history, o.dry_penalty_last_n),
                  {o.dry_multiplier, o.dry_base, o.dry_allowed_length, o.dry_sequence_breakers}, tokenizer_);
  }
  if (filter == "top_n_sigma") top_n_sigma(c, o.top_n_sigma);
  if (filter == "top_k" && o.top_k > 0) keep_best(c, size_t(o.top_k));
  if (filter == "typ_p") typical_p(c, o.typical_p);
  if (filter == "top_p") top_p(c, o.top_p);
  if (filter == "min_p") min_p(c, o.min_p);
  if (filter == "xtc" && counter_uniform(o.seed, sequence_ ^ kXtc, position) < o.xtc_probability)
    exclude_top_choices(c, o.xtc_threshold);
  if (filter == "temperature" && o.temperature > 0)
    dynamic_temperature(c, o.temperature, o.dynatemp_range, o.dynatemp_exponent);
}

// The number of the candidate that is drawn out of the sorted ones, and its probability.
std::pair<size_t, double> Sampler::draw(uint64_t position) const {
  const std::vector<double> w = weights(left_);
  double total = 0;
  for (double x : w) total += x;
  double left = counter_uniform(options_.seed, sequence_, position) * total;
  for (size_t i = 0; i < w.size(); ++i) {
    left -= w[i];
    if (left < 0) return {i, w[i] / total};
  }
  return {w.size() - 1, w.back() / total};
}

int Sampler::choose(std::span<const float> logits, std::span<const int> history, uint64_t position,
                    std::span<const uint64_t> allowed) {
  const SamplerOptions& o = options_;
  left_ = gather(logits, allowed);
  PLUMB_CHECK(!left_.empty());  // GrammarState::allowed throws first
  const bool mirostat = o.mirostat > 0 && o.temperature > 0;
  if (mirostat) {
    temperature(left_, o.temperature);
    o.mirostat == 1 ? mirostat_1(left_, surprise_, int(logits.size())) : mirostat_2(left_, surprise_);
  } else {
    for (const std::string& filter : o.chain) apply(filter, history, position);
  }
  keep_best(left_, o.temperature <= 0 ? 1 : left_.size());
  const auto [drawn, p] = draw(position);
  if (mirostat) surprise_ -= o.mirostat_eta * (bits(p) - o.mirostat_tau);
  return left_[drawn].id;
}

std::vector<std::pair<int, double>> Sampler::drawn_from() const {
  const std::vector<double> w = weights(left_);
  double total = 0;
  for (double x : w) total += x;
  std::vector<std::pair<int, double>> out;
  for (size_t i = 0; i < w.size(); ++i) out.emplace_back(left_[i].id, w[i] / total);
  return out;
}

}  // namespace plumb
