#include "engine/scores.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"
#include "base/sha256.h"
#include "engine/perplexity.h"

namespace plumb {

ScoredToken score_token(Pool& pool, std::span<const float> logits, int id, int top) {
  const std::vector<double> x(logits.begin(), logits.end());
  const double sum = log_sum_exp(pool, x);
  ScoredToken out{.id = id, .scored = true, .logprob = x[size_t(id)] - sum};
  std::vector<int> best(std::min(x.size(), size_t(std::max(top, 2))));
  std::vector<int> all(x.size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = int(i);
  std::partial_sort_copy(all.begin(), all.end(), best.begin(), best.end(), [&](int a, int b) {
    return x[size_t(a)] != x[size_t(b)] ? x[size_t(a)] > x[size_t(b)] : a < b;
  });
  if (best.size() > 1) out.margin = x[size_t(best[0])] - x[size_t(best[1])];
  for (int i = 0; i < top && i < int(best.size()); ++i)
    out.top.push_back({best[size_t(i)], x[size_t(best[size_t(i)])] - sum});
  return out;
}

ScoredToken drawn_token(const std::vector<std::pair<int, double>>& left, int id, int top) {
  ScoredToken out{.id = id, .scored = true, .logprob = -INFINITY};
  for (const auto& [other, p] : left) {
    const double logprob = p > 0 ? logarithm(p) : -INFINITY;
    if (other == id) out.logprob = logprob;
    if (int(out.top.size()) < top) out.top.emplace_back(other, logprob);
  }
  return out;
}

uint64_t hash_logits(std::span<const float> logits) {
  const Sha256 digest = sha256({reinterpret_cast<const char*>(logits.data()), logits.size_bytes()});
  uint64_t out = 0;
  for (size_t i = 0; i < 8; ++i) out = out << 8 | digest[i];
  return out;
}

}  // namespace plumb
