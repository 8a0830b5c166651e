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

constexpr std::string_view kNames[] = {"penalties", "top_k", "top_p", "min_p", "temperature"};

bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Keeps the k best, sorted.
void keep_best(std::vector<Candidate>& c, size_t k) {
  k = std::min(k, c.size());
  std::partial_sort(c.begin(), c.begin() + int64_t(k), c.end(), before);
  c.resize(k);
}

// The k best of the allowed logits, sorted: one pass, as few are better than the k-th best so far.
std::vector<Candidate> best_of(std::span<const float> logits, std::span<const uint64_t> allowed, size_t k) {
  std::vector<Candidate> heap;  // the worst on top
  heap.reserve(k + 1);
  float least = -std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < logits.size(); ++i) {
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
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

// e^(logit - largest) for sorted candidates, unnormalised.
std::vector<double> weights(const std::vector<Candidate>& c) {
  std::vector<double> w;
  w.reserve(c.size());
  for (const Candidate& x : c) w.push_back(exponential(x.logit - c.front().logit));
  return w;
}

void top_p(std::vector<Candidate>& c, double p) {
  if (p >= 1) return;
  keep_best(c, c.size());
  const std::vector<double> w = weights(c);
  double total = 0, sum = 0;
  for (double x : w) total += x;
  size_t n = 0;
  while (n < c.size() && (n == 0 || sum < p * total)) sum += w[n++];
  c.resize(n);
}

void min_p(std::vector<Candidate>& c, double p) {
  if (p <= 0) return;
  double largest = c.front().logit;
  for (const Candidate& x : c) largest = std::max(largest, x.logit);
  const double least = largest + logarithm(p);
  std::erase_if(c, [&](const Candidate& x) { return x.logit < least && x.logit < largest; });
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

// Whether the largest logit alone decides, unless a grammar has a say.
bool greedy(const SamplerOptions& o) { return o.temperature <= 0 && !penalises(o) && o.logit_bias.empty(); }

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

Sampler::Sampler(const SamplerOptions& options, uint64_t sequence) : options_(options), sequence_(sequence) {}

// How many candidates the chain's first filter keeps, where these are the largest logits; 0: not known yet.
size_t Sampler::first_cut() const {
  if (greedy(options_)) return 1;
  if (options_.temperature <= 0 || penalises(options_) || !options_.logit_bias.empty()) return 0;
  for (const std::string& filter : options_.chain) {
    if (filter == "top_k" && options_.top_k > 0) return size_t(options_.top_k);
    if (filter != "penalties" && filter != "top_k") break;
  }
  return 0;
}

// Keskar et al. 2019, arXiv:1909.05858, section 4.1, once per distinct id; presence and frequency as OpenAI
// defines them.
void Sampler::penalise(std::vector<Candidate>& c, std::span<const int> history) const {
  if (!penalises(options_)) return;
  const size_t last =
      options_.repeat_last_n < 0 ? history.size() : std::min(history.size(), size_t(options_.repeat_last_n));
  std::unordered_map<int, int> seen;
  for (int id : history.last(last)) ++seen[id];
  for (Candidate& x : c) {
    const auto it = seen.find(x.id);
    if (it == seen.end()) continue;
    x.logit = x.logit > 0 ? x.logit / options_.repeat_penalty : x.logit * options_.repeat_penalty;
    x.logit -= it->second * options_.frequency_penalty + options_.presence_penalty;
  }
}

void Sampler::apply(std::string_view filter, std::vector<Candidate>& c, std::span<const int> history) const {
  if (filter == "penalties") penalise(c, history);
  if (filter == "top_k" && options_.top_k > 0) keep_best(c, size_t(options_.top_k));
  if (filter == "top_p") top_p(c, options_.top_p);
  if (filter == "min_p") min_p(c, options_.min_p);
  if (filter == "temperature") {
    // Below the least difference of two floats the best alone is drawn; a smaller divisor would only
    // overflow.
    const double t = std::max(options_.temperature, 1e-100);
    for (Candidate& x : c) x.logit /= t;
  }
}

int Sampler::choose(std::span<const float> logits, std::span<const int> history, uint64_t position,
                    std::span<const uint64_t> allowed) const {
  std::vector<Candidate> c;
  if (const size_t few = first_cut(); few > 0 && few < logits.size()) {
    c = best_of(logits, allowed, few);
  } else {
    c.resize(logits.size());
    for (size_t i = 0; i < c.size(); ++i) c[i] = {int(i), double(logits[i])};
    for (const auto& [id, bias] : options_.logit_bias) {
      if (id >= 0 && size_t(id) < c.size()) c[size_t(id)].logit += bias;
    }
    if (!allowed.empty()) std::erase_if(c, [&](const Candidate& x) { return !is_allowed(allowed, x.id); });
  }
  PLUMB_CHECK(!c.empty());  // GrammarState::allowed throws first
  if (options_.temperature <= 0) {
    penalise(c, history);
    return std::min_element(c.begin(), c.end(), before)->id;
  }
  for (const std::string& filter : options_.chain) apply(filter, c, history);
  keep_best(c, c.size());
  const std::vector<double> w = weights(c);
  double total = 0;
  for (double x : w) total += x;
  double left = counter_uniform(options_.seed, sequence_, position) * total;
  for (size_t i = 0; i < c.size(); ++i) {
    left -= w[i];
    if (left < 0) return c[i].id;
  }
  return c.back().id;
}

}  // namespace plumb
