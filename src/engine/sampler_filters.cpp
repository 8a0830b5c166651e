#include "engine/sampler_filters.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "base/math.h"

namespace plumb {
namespace {

constexpr int kZipf = 100;            // likeliest candidates that tell Zipf's exponent
constexpr double kMostPenalty = 1e9;  // of a repeat: more would only overflow

double largest(const Candidates& c) { return std::min_element(c.begin(), c.end(), before)->logit; }

// Probabilities of sorted candidates.
std::vector<double> probabilities(const Candidates& c) {
  std::vector<double> p = weights(c);
  double total = 0;
  for (double x : p) total += x;
  for (double& x : p) x /= total;
  return p;
}

double surprise(double p) { return p > 0 ? -logarithm(p) : INFINITY; }  // in nats

double entropy(const std::vector<double>& p) {
  double sum = 0;
  for (double x : p) sum += x > 0 ? x * surprise(x) : 0;
  return sum;
}

// How many ids at the end of the text stand behind the last breaker: those after the one in which it ends.
size_t behind_breaker(std::span<const int> history, std::span<const std::string> breakers,
                      const Tokenizer& tokenizer) {
  std::string text;
  std::vector<size_t> ends;
  for (int id : history) text += tokenizer.piece(id, true), ends.push_back(text.size());
  size_t end = 0;
  for (const std::string& b : breakers) {
    const size_t at = b.empty() ? std::string::npos : text.rfind(b);
    if (at != std::string::npos) end = std::max(end, at + b.size());
  }
  if (end == 0) return history.size();
  const auto holds = std::lower_bound(ends.begin(), ends.end(), end);
  return size_t(ends.end() - holds) - 1;
}

// z[k]: how many of the first elements stand again from k on (Gusfield 1997, section 1.3).
std::vector<size_t> z_function(const std::vector<int>& s) {
  std::vector<size_t> z(s.size());
  for (size_t i = 1, left = 0, right = 0; i < s.size(); ++i) {
    if (i < right) z[i] = std::min(right - i, z[i - left]);
    while (i + z[i] < s.size() && s[z[i]] == s[i + z[i]]) ++z[i];
    if (i + z[i] > right) left = i, right = i + z[i];
  }
  return z;
}

}  // namespace

bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

std::vector<double> weights(const Candidates& c) {
  std::vector<double> w;
  w.reserve(c.size());
  for (const Candidate& x : c) w.push_back(exponential(x.logit - c.front().logit));
  return w;
}

double bits(double p) { return surprise(p) / 0.6931471805599453; }

void keep_best(Candidates& c, size_t k) {
  k = std::min(k, c.size());
  std::partial_sort(c.begin(), c.begin() + int64_t(k), c.end(), before);
  c.resize(k);
}

void top_p(Candidates& c, double p) {
  if (p >= 1) return;
  keep_best(c, c.size());
  const std::vector<double> w = weights(c);
  double total = 0, sum = 0;
  for (double x : w) total += x;
  size_t n = 0;
  while (n < c.size() && (n == 0 || sum < p * total)) sum += w[n++];
  c.resize(n);
}

void min_p(Candidates& c, double p) {
  if (p <= 0) return;
  const double most = largest(c), least = most + logarithm(p);
  std::erase_if(c, [&](const Candidate& x) { return x.logit < least && x.logit < most; });
}

void typical_p(Candidates& c, double p) {
  if (p >= 1) return;
  keep_best(c, c.size());
  const std::vector<double> all = probabilities(c);
  const double expected = entropy(all);
  std::vector<size_t> order(c.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::vector<double> off;
  for (double x : all) off.push_back(std::fabs(surprise(x) - expected));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return off[a] < off[b]; });
  Candidates kept;
  double sum = 0;
  for (size_t i : order) {
    kept.push_back(c[i]);
    if ((sum += all[i]) > p) break;
  }
  c = std::move(kept);
}

void top_n_sigma(Candidates& c, double n) {
  if (n <= 0 || c.size() < 2) return;
  const double most = largest(c);
  double sum = 0, squares = 0, count = 0;
  for (const Candidate& x : c) {
    if (std::isfinite(x.logit)) sum += x.logit, ++count;
  }
  const double mean = sum / count;
  for (const Candidate& x : c) {
    if (std::isfinite(x.logit)) squares += (x.logit - mean) * (x.logit - mean);
  }
  const double least = most - n * std::sqrt(squares / count);
  std::erase_if(c, [&](const Candidate& x) { return !(x.logit >= least) && x.logit < most; });
}

void exclude_top_choices(Candidates& c, double threshold) {
  if (threshold > 0.5 || c.size() < 2) return;
  keep_best(c, c.size());
  const std::vector<double> p = probabilities(c);
  size_t choices = 0;
  while (choices < p.size() && p[choices] >= threshold) ++choices;
  if (choices > 1) c.erase(c.begin(), c.begin() + int64_t(choices) - 1);
}

void temperature(Candidates& c, double t) {
  // Below the least difference of two floats the best alone is drawn; a smaller divisor would only overflow.
  t = std::max(t, 1e-100);
  for (Candidate& x : c) x.logit /= t;
}

void dynamic_temperature(Candidates& c, double t, double range, double exponent) {
  if (range <= 0) return temperature(c, t);
  if (c.size() < 2) return;
  keep_best(c, c.size());
  const double low = std::max(0.0, t - range);
  const double share = std::min(1.0, entropy(probabilities(c)) / logarithm(double(c.size())));
  temperature(c, low + (t + range - low) * (share > 0 ? power(share, exponent) : exponent > 0 ? 0 : 1));
}

void do_not_repeat(Candidates& c, std::span<const int> history, const DryOptions& o,
                   const Tokenizer* tokenizer) {
  if (o.multiplier <= 0 || o.base < 1) return;
  const size_t allowed = size_t(o.allowed_length);
  const size_t limit = tokenizer ? behind_breaker(history, o.breakers, *tokenizer) : history.size();
  if (limit < allowed || history.size() <= allowed) return;
  const std::vector<int> last_first(history.rbegin(), history.rend());
  const std::vector<size_t> z = z_function(last_first);
  std::unordered_map<int, size_t> longest;  // by the id that would go on: how much it would repeat
  for (size_t k = 1; k < z.size(); ++k) {
    const size_t n = std::min(z[k], limit);
    if (n < allowed) continue;
    size_t& most = longest[last_first[k - 1]];
    most = std::max(most, n);
  }
  for (Candidate& x : c) {
    const auto it = longest.find(x.id);
    if (it == longest.end()) continue;
    x.logit -= std::min(kMostPenalty, o.multiplier * power(o.base, double(it->second - allowed)));
  }
}

void mirostat_2(Candidates& c, double most) {
  keep_best(c, c.size());
  const std::vector<double> p = probabilities(c);
  size_t n = 1;
  while (n < p.size() && bits(p[n]) <= most) ++n;
  c.resize(n);
}

void mirostat_1(Candidates& c, double most, int vocabulary) {
  keep_best(c, c.size());
  const std::vector<double> p = probabilities(c);
  double products = 0, squares = 0;
  for (int i = 0; i + 1 < std::min(int(p.size()), kZipf) && p[size_t(i + 1)] > 0; ++i) {
    const double t = logarithm(double(i + 2) / double(i + 1));
    products += t * logarithm(p[size_t(i)] / p[size_t(i + 1)]), squares += t * t;
  }
  if (squares == 0) return;
  const double s = products / squares, excess = s - 1;
  const double k = power(excess * power(2, most) / (1 - power(double(vocabulary), -excess)), 1 / s);
  if (std::isfinite(k)) keep_best(c, size_t(std::clamp(k, 1.0, double(c.size()))));
}

}  // namespace plumb
