// Filters against naive versions, and what Mirostat steers to. bench/samplers.py compares them with
// llama.cpp's.
#include "engine/sampler_filters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "engine/sampler.h"
#include "text/test_vocabulary.h"

namespace plumb {
namespace {

Candidates random_candidates(std::mt19937_64& r, int n) {
  Candidates c;
  for (int i = 0; i < n; ++i) c.push_back({i, double(r() >> 11) * 0x1p-53 * 10 - 5});
  return c;
}

std::map<int, double> softmax(const Candidates& c) {
  std::map<int, double> p;
  double total = 0;
  for (const Candidate& x : c) total += p[x.id] = std::exp(x.logit);
  for (auto& [id, x] : p) x /= total;
  return p;
}

std::set<int> ids(const Candidates& c) {
  std::set<int> out;
  for (const Candidate& x : c) out.insert(x.id);
  return out;
}

TEST(SamplerFilters, TypicalKeepsTheLeastSurprisingSurprisesUntilTheySumToP) {
  std::mt19937_64 r(1);
  for (int round = 0; round < 50; ++round) {
    Candidates c = random_candidates(r, 9);
    const auto p = softmax(c);
    double entropy = 0;
    for (const auto& [id, x] : p) entropy -= x * std::log(x);
    std::vector<std::pair<double, int>> order;
    for (const auto& [id, x] : p) order.emplace_back(std::fabs(-std::log(x) - entropy), id);
    std::sort(order.begin(), order.end());
    const double most = double(round + 1) / 52;
    std::set<int> expected;
    double sum = 0;
    for (const auto& [off, id] : order) {
      expected.insert(id);
      if ((sum += p.at(id)) > most) break;
    }
    typical_p(c, most);
    EXPECT_EQ(ids(c), expected) << most;
  }
}

TEST(SamplerFilters, NSigmaCountsFromTheLargestAndLeavesOutWhatIsForbidden) {
  Candidates c = {{0, 4}, {1, 2}, {2, 0}, {3, -INFINITY}};  // mean 2, deviation sqrt(8/3)
  Candidates all = c;
  top_n_sigma(c, 1.3);
  EXPECT_EQ(ids(c), (std::set<int>{0, 1}));
  top_n_sigma(all, -1);
  EXPECT_EQ(all.size(), 4u);
}

TEST(SamplerFilters, OfTheTopChoicesTheLastOneStays) {
  Candidates c = {{0, std::log(0.4)}, {1, std::log(0.3)}, {2, std::log(0.2)}, {3, std::log(0.1)}};
  Candidates one = c, none = c;
  exclude_top_choices(c, 0.15);
  EXPECT_EQ(ids(c), (std::set<int>{2, 3}));
  exclude_top_choices(one, 0.35);
  EXPECT_EQ(one.size(), 4u);
  exclude_top_choices(none, 0.6);
  EXPECT_EQ(none.size(), 4u);
}

TEST(SamplerFilters, ACertainChoiceIsColdAndAnEvenOneHot) {
  Candidates even = {{0, 1}, {1, 1}}, certain = {{0, 1000}, {1, 0}};
  dynamic_temperature(even, 1, 0.5, 2);
  EXPECT_NEAR(even[0].logit, 1 / 1.5, 1e-12);
  dynamic_temperature(certain, 1, 0.5, 2);
  EXPECT_NEAR(certain[0].logit, 1000 / 0.5, 1e-9);
}

// By the definition: for each id, the longest end of the text that stands before that id elsewhere in it.
std::map<int, size_t> repeats(const std::vector<int>& h, size_t limit) {
  std::map<int, size_t> longest;
  for (size_t next = 1; next < h.size(); ++next) {
    size_t n = 0;
    while (n < next && n < limit && h[next - 1 - n] == h[h.size() - 1 - n]) ++n;
    longest[h[next]] = std::max(longest[h[next]], n);
  }
  return longest;
}

TEST(SamplerFilters, ARepeatCostsByItsLength) {
  std::mt19937_64 r(2);
  for (int round = 0; round < 300; ++round) {
    std::vector<int> h(r() % 30);
    for (int& id : h) id = int(r() % 3);
    const int allowed = 1 + int(r() % 3);
    const auto longest = repeats(h, h.size());
    Candidates c = {{0, 0}, {1, 0}, {2, 0}, {3, 0}};
    do_not_repeat(c, h, {2, 1.5, allowed, {}}, nullptr);
    for (const Candidate& x : c) {
      const auto it = longest.find(x.id);
      const size_t n = it == longest.end() || h.size() <= size_t(allowed) ? 0 : it->second;
      const double expected = n >= size_t(allowed) ? -2 * std::pow(1.5, double(n) - allowed) : 0;
      EXPECT_NEAR(x.logit, expected, 1e-9 * std::fabs(expected) + 1e-12) << round << " " << x.id;
    }
  }
}

TEST(SamplerFilters, AVeryLongRepeatStaysFinite) {
  const std::vector<int> h(5000, 7);
  Candidates c = {{7, 1}};
  do_not_repeat(c, h, {1, 1.75, 2, {}}, nullptr);
  EXPECT_TRUE(std::isfinite(c[0].logit));
}

TEST(SamplerFilters, NoRepeatGoesBeyondABreaker) {
  const TestVocabulary vocabulary = TestVocabulary::bpe("llama-bpe");  // ids below 256 are bytes
  const Gguf file = vocabulary.file();
  const Tokenizer tokenizer = Tokenizer::load(file);
  const auto cost = [&](const std::string& text, const std::vector<std::string>& breakers) {
    const std::vector<int> history(text.begin(), text.end());
    Candidates c = {{'d', 0}};
    do_not_repeat(c, history, {1, 1, 2, breakers}, &tokenizer);
    return -c[0].logit;
  };
  EXPECT_EQ(cost("abcdxabc", {}), 1);
  EXPECT_EQ(cost("abcdxabc", {"ax"}), 1);
  EXPECT_EQ(cost("abcdxabc", {"b"}), 0);   // "c" alone stands behind it
  EXPECT_EQ(cost("abcdxabc", {"xa"}), 1);  // "bc" does, over two tokens
  EXPECT_EQ(cost("abcdxabc", {"", "bc"}), 0);
}

TEST(SamplerFilters, MirostatSteersToItsTarget) {
  std::vector<float> logits(2000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = float(-1.1 * std::log(double(i + 1)));  // Zipf
  const auto p = [&] {
    Candidates c;
    for (size_t i = 0; i < logits.size(); ++i) c.push_back({int(i), double(logits[i])});
    return softmax(c);
  }();
  for (const int version : {1, 2}) {
    for (const double target : {2.0, 4.0}) {
      SamplerOptions o{.seed = 5, .temperature = 1, .mirostat = version, .mirostat_tau = target};
      Sampler s(o, 0);
      double bits = 0;
      for (uint64_t i = 0; i < 3000; ++i) {
        const int id = s.choose(logits, {}, i);
        for (const auto& [other, q] : s.drawn_from()) bits -= other == id ? std::log2(q) : 0;
      }
      EXPECT_NEAR(bits / 3000, target, 0.15 * target) << version;
    }
  }
  EXPECT_GT(p.at(0), p.at(1));
}

}  // namespace
}  // namespace plumb
