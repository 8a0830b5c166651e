// The sampler's filters against naive versions, its draws, and what it refuses.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "base/error.h"

namespace plumb {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

SamplerOptions all_off() { return {.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0}; }

std::vector<float> random_logits(std::mt19937_64& r, int n, bool ties) {
  std::vector<float> l;
  for (int i = 0; i < n; ++i) l.push_back(ties ? float(r() % 5) : float(r() >> 40) * 0x1p-24f * 12 - 6);
  return l;
}

// All ids that 4000 draws at different positions give.
std::set<int> drawn(const SamplerOptions& o, const std::vector<float>& logits,
                    const std::vector<int>& history = {}) {
  Sampler s(o, 0);
  std::set<int> ids;
  for (uint64_t position = 0; position < 4000; ++position) ids.insert(s.choose(logits, history, position));
  return ids;
}

// Ids by falling logit, ties by id.
std::vector<int> ranked(const std::vector<float>& l) {
  std::vector<int> ids(l.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int(i);
  std::sort(ids.begin(), ids.end(),
            [&](int a, int b) { return l[size_t(a)] != l[size_t(b)] ? l[size_t(a)] > l[size_t(b)] : a < b; });
  return ids;
}

TEST(Sampler, TopKDrawsExactlyTheKBestWithTiesToTheLowestId) {
  std::mt19937_64 r(1);
  for (int k : {1, 2, 5}) {
    for (bool ties : {false, true}) {
      const std::vector<float> l = random_logits(r, 12, ties);
      SamplerOptions o = all_off();
      o.top_k = k, o.temperature = 8;  // flat enough that every survivor is drawn
      const std::vector<int> best = ranked(l);
      EXPECT_EQ(drawn(o, l), std::set<int>(best.begin(), best.begin() + k)) << k;
    }
  }
}

TEST(Sampler, TopPKeepsTheSmallestSetThatReachesP) {
  std::mt19937_64 r(2);
  for (int round = 0; round < 20; ++round) {
    const std::vector<float> l = random_logits(r, 8, round % 2);
    for (double p : {0.0, 0.2, 0.5, 0.9, 0.99}) {
      std::set<int> expected;
      double total = 0, sum = 0;
      for (float x : l) total += std::exp(double(x));
      for (int id : ranked(l)) {
        if (!expected.empty() && sum >= p * total) break;
        expected.insert(id), sum += std::exp(double(l[size_t(id)]));
      }
      SamplerOptions o = all_off();
      o.top_p = p, o.temperature = 20;
      EXPECT_EQ(drawn(o, l), expected) << p;
    }
  }
}

TEST(Sampler, MinPKeepsWhatIsAtLeastPTimesTheBest) {
  std::mt19937_64 r(3);
  for (int round = 0; round < 20; ++round) {
    const std::vector<float> l = random_logits(r, 8, false);
    for (double p : {0.01, 0.1, 0.5, 1.0}) {
      std::set<int> expected;
      for (size_t i = 0; i < l.size(); ++i) {
        if (std::exp(double(l[i]) - *std::max_element(l.begin(), l.end())) >= p) expected.insert(int(i));
      }
      SamplerOptions o = all_off();
      o.min_p = p, o.temperature = 20;
      EXPECT_EQ(drawn(o, l), expected) << p;
    }
  }
}

TEST(Sampler, DrawsFollowTheSoftmaxOfTheTemperature) {
  const std::vector<float> l = {1, 0, -1, 2.5f};
  for (double t : {0.5, 1.0, 2.0}) {
    SamplerOptions o = all_off();
    o.temperature = t, o.seed = 9;
    Sampler s(o, 3);
    std::map<int, int> count;
    const int n = 40000;
    for (int i = 0; i < n; ++i) ++count[s.choose(l, {}, uint64_t(i))];
    double total = 0;
    for (float x : l) total += std::exp(x / t);
    for (int id = 0; id < 4; ++id) {
      const double p = std::exp(l[size_t(id)] / t) / total;
      EXPECT_NEAR(count[id], n * p, 5 * std::sqrt(n * p * (1 - p))) << id << " at " << t;
    }
  }
}

TEST(Sampler, ZeroTemperatureTakesTheBestWithTiesToTheLowestId) {
  SamplerOptions o = all_off();
  o.temperature = 0;
  Sampler s(o, 0);
  EXPECT_EQ(s.choose(std::vector<float>{1, 3, 3, 2}, {}, 0), 1);
  EXPECT_EQ(argmax(std::vector<float>{1, 3, 3, 2}), 1);
}

TEST(Sampler, TheSmallestTemperatureIsAsGoodAsZero) {
  for (double t : {1e-3, 1e-200, 1e-310, 5e-324}) {
    SamplerOptions o = all_off();
    o.temperature = t;
    EXPECT_EQ(drawn(o, {-1, 7, 6.9f, 3}), std::set<int>{1}) << t;
  }
}

TEST(Sampler, PenaltiesFollowTheirDefinitionsOverTheLastTokensOnly) {
  SamplerOptions o = all_off();
  o.temperature = 0, o.repeat_last_n = 3;
  const std::vector<float> l = {2, 1.9f, -1};
  const auto choose = [&](std::vector<int> history) { return Sampler(o, 0).choose(l, history, 0); };
  EXPECT_EQ(choose({0, 0}), 0);
  o.repeat_penalty = 1.2;  // 2 / 1.2 < 1.9
  EXPECT_EQ(choose({0}), 1);
  EXPECT_EQ(choose({0, 2, 2, 2}), 0) << "older than the last three";
  o.repeat_penalty = 1, o.presence_penalty = 0.2;
  EXPECT_EQ(choose({0}), 1);
  o.presence_penalty = 0, o.frequency_penalty = 0.06;  // once 0.06, twice 0.12
  EXPECT_EQ(choose({0}), 0);
  EXPECT_EQ(choose({0, 0}), 1);
  o.repeat_last_n = 0;
  EXPECT_EQ(choose({0, 0}), 0);
  o.frequency_penalty = 0, o.repeat_penalty = 4, o.repeat_last_n = -1;  // a negative logit is multiplied
  EXPECT_EQ(Sampler(o, 0).choose(std::vector<float>{-1, -2}, std::vector<int>{0, 1, 1, 1, 1}, 0), 0);
  EXPECT_EQ(Sampler(o, 0).choose(std::vector<float>{-1, -2}, std::vector<int>{0}, 0), 1);
}

TEST(Sampler, TheSameKeysDrawTheSameAndOthersDiffer) {
  std::mt19937_64 r(4);
  const std::vector<float> l = random_logits(r, 1000, false);
  const auto text = [&](uint64_t seed, uint64_t sequence) {
    SamplerOptions o = all_off();
    o.seed = seed;
    std::vector<int> ids;
    for (uint64_t i = 0; i < 20; ++i) ids.push_back(Sampler(o, sequence).choose(l, {}, i));
    return ids;
  };
  EXPECT_EQ(text(1, 0), text(1, 0));
  EXPECT_NE(text(1, 0), text(2, 0));
  EXPECT_NE(text(1, 0), text(1, 1));
}

TEST(Sampler, CounterUniformIsUniformOverEachOfItsKeys) {
  for (int key = 0; key < 3; ++key) {
    const int bins = 256, n = 256 * 400;
    std::vector<int> count(size_t(bins), 0);
    for (uint64_t i = 0; i < uint64_t(n); ++i) {
      const double u = counter_uniform(key == 0 ? i : 7, key == 1 ? i : 0, key == 2 ? i : 5);
      ASSERT_TRUE(u >= 0 && u < 1);
      ++count[size_t(u * bins)];
    }
    double chi = 0;
    for (int c : count) chi += std::pow(c - 400.0, 2) / 400;
    EXPECT_NEAR(chi, bins - 1, 5 * std::sqrt(2.0 * (bins - 1))) << "key " << key;
  }
}

TEST(Sampler, RefusesParametersThatAreNotFiniteOrOutOfRange) {
  const auto refused = [](auto change) {
    SamplerOptions o;
    change(o);
    try {
      check(o);
    } catch (const Error& e) {
      return e.code() == "sampler.value";
    }
    return false;
  };
  EXPECT_FALSE(refused([](SamplerOptions&) {}));
  for (double bad : {kInfinity, -kInfinity, std::nan("")}) {
    EXPECT_TRUE(refused([&](SamplerOptions& o) { o.temperature = bad; }));
    EXPECT_TRUE(refused([&](SamplerOptions& o) { o.top_p = bad; }));
    EXPECT_TRUE(refused([&](SamplerOptions& o) { o.min_p = bad; }));
    EXPECT_TRUE(refused([&](SamplerOptions& o) { o.repeat_penalty = bad; }));
    EXPECT_TRUE(refused([&](SamplerOptions& o) { o.presence_penalty = bad; }));
    EXPECT_TRUE(refused([&](SamplerOptions& o) { o.frequency_penalty = bad; }));
    EXPECT_TRUE(refused([&](SamplerOptions& o) { o.logit_bias = {{1, bad}}; })) << bad;
  }
  EXPECT_TRUE(refused([](SamplerOptions& o) { o.top_p = 1.1; }));
  EXPECT_TRUE(refused([](SamplerOptions& o) { o.repeat_penalty = 0; }));
  EXPECT_TRUE(refused([](SamplerOptions& o) { o.chain = {"top_q"}; }));
}

TEST(Sampler, WhatIsNotAllowedIsLeftOutBeforeTheChainAndAllowingAllChangesNothing) {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = float(i * 37 % 101) / 9;
  const std::vector<int> history = {3, 99, 7};
  const std::vector<uint64_t> all(2, ~uint64_t(0)), two = {uint64_t(1) << 5, uint64_t(1) << (70 - 64)};
  for (double temperature : {0.0, 0.8}) {
    SamplerOptions o;
    o.temperature = temperature;
    o.top_k = 3;  // without the mask neither 5 nor 70 is among these
    Sampler sampler(o, 0);
    for (uint64_t position = 0; position < 50; ++position) {
      const int free = sampler.choose(logits, history, position);
      EXPECT_EQ(sampler.choose(logits, history, position, all), free);
      const int id = sampler.choose(logits, history, position, two);
      EXPECT_TRUE(id == 5 || id == 70) << id;
      EXPECT_TRUE(free != 5 && free != 70);
    }
  }
}

TEST(Sampler, TheShortWayToTheLargestLogitsChoosesWhatTheLongOneDoes) {
  std::mt19937_64 r(5);
  for (int round = 0; round < 200; ++round) {
    const std::vector<float> logits = random_logits(r, 300, round % 2);
    std::vector<uint64_t> allowed(5);
    for (uint64_t& bits : allowed) bits = r();
    allowed[4] &= (uint64_t(1) << (300 - 256)) - 1, allowed[0] |= 1;
    SamplerOptions shorter;
    shorter.temperature = round % 3 ? 0.9 : 0, shorter.top_k = 1 + int(r() % 60);
    SamplerOptions longer = shorter;
    longer.logit_bias = {{0, 0.0}};  // nothing, but it takes the long way
    const uint64_t position = r();
    for (const std::span<const uint64_t> mask :
         {std::span<const uint64_t>(), std::span<const uint64_t>(allowed)})
      EXPECT_EQ(Sampler(shorter, 1).choose(logits, {}, position, mask),
                Sampler(longer, 1).choose(logits, {}, position, mask));
  }
}

}  // namespace
}  // namespace plumb
