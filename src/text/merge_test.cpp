// The merging engines give one answer, that of a plain rescan.
#include "text/merge.h"

#include <gtest/gtest.h>

#include <climits>
#include <map>
#include <random>

namespace plumb {
namespace {

struct RandomPairs {
  std::map<std::pair<int, int>, Merge> merges;
  bool knows_least = false;
  int least_rank(int symbol) const {
    int least = INT_MAX;
    for (const auto& [pair, merge] : merges) {
      if (pair.first == symbol || pair.second == symbol) least = std::min(least, merge.rank);
    }
    return knows_least ? least : -1;
  }
  Merge operator()(int left, int right) const {
    const auto at = merges.find({left, right});
    return at == merges.end() ? Merge{-1, -1} : at->second;
  }
};

TEST(Merge, LongEngineEqualsRescanningOnRandomMerges) {
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    RandomPairs pairs;
    pairs.knows_least = round % 2 == 0;
    std::vector<int> units(4, 1);
    const int ranks = 1 + static_cast<int>(random() % 30);
    for (int i = 0; i < 60; ++i) {  // each merge makes a new symbol of known length; ranks may tie
      const int a = static_cast<int>(random() % units.size()), b = static_cast<int>(random() % units.size());
      if (pairs.merges.count({a, b})) continue;
      pairs.merges[{a, b}] = {static_cast<int>(random()) % ranks & 0xFF, static_cast<int>(units.size())};
      units.push_back(units[static_cast<size_t>(a)] + units[static_cast<size_t>(b)]);
    }
    for (int n : {1, 2, 3, 17, 40}) {
      std::vector<int> text;
      for (int i = 0; i < n; ++i) text.push_back(static_cast<int>(random() % 4));
      std::vector<int> slow = text, fast = text;
      slow.resize(static_cast<size_t>(merge_short(slow.data(), n, pairs)));
      fast.resize(static_cast<size_t>(merge_long(fast.data(), n, units.data(), pairs)));
      ASSERT_EQ(slow, fast);
    }
  }
}

// Few letters, ties, and merges that must come before those that make them possible.
TEST(Merge, SweepsOverRepetitiveWordsEqualTheLongEngine) {
  std::mt19937 random(9);
  int whole = 0;
  for (int round = 0; round < 1000; ++round) {
    RandomPairs pairs;
    std::vector<int> units(3, 1);
    const int ranks = 1 + static_cast<int>(random() % 30);
    for (int i = 0; i < 40; ++i) {
      const int a = static_cast<int>(random() % units.size()), b = static_cast<int>(random() % units.size());
      if (pairs.merges.count({a, b})) continue;
      pairs.merges[{a, b}] = {static_cast<int>(random()) % ranks & 0xFF, static_cast<int>(units.size())};
      units.push_back(units[static_cast<size_t>(a)] + units[static_cast<size_t>(b)]);
    }
    for (size_t n : {2, 3, 40, 200}) {
      const size_t period = 1 + random() % 7;
      std::vector<int> text;
      for (size_t i = 0; i < n; ++i) {
        text.push_back(i < period || random() % 50 == 0 ? static_cast<int>(random() % 3) : text[i - period]);
      }
      std::vector<int> slow = text;
      slow.resize(static_cast<size_t>(merge_long(slow.data(), static_cast<int>(n), units.data(), pairs)));
      RepetitiveWord<RandomPairs> word(pairs);
      ASSERT_TRUE(word.assign(n, [&](size_t i) { return text[i]; }));
      std::vector<int> fast;
      if (word.merge()) {
        for (size_t i = 0; i < word.size(); ++i) fast.push_back(word.symbol(i));
        ++whole;
      } else {  // stopped early: the long engine takes it from there
        fast.resize(n);
        spread(word, units.data(), fast.data());
        fast.resize(static_cast<size_t>(merge_long(fast.data(), static_cast<int>(n), units.data(), pairs)));
      }
      ASSERT_EQ(slow, fast);
    }
  }
  EXPECT_GT(whole, 1000);
}

TEST(BucketQueue, PopsByRankThenPositionHoweverPushed) {
  std::mt19937 random(8);
  for (int round = 0; round < 200; ++round) {
    BucketQueue queue;
    std::multimap<std::pair<int, int>, int> model;
    for (int i = 0; i < 1000; ++i) {
      if (model.empty() || random() % 3) {
        const int rank = static_cast<int>(random() % 5), position = static_cast<int>(random() % 300);
        queue.push(rank, position);
        model.insert({{rank, position}, 0});
      } else {
        const int rank = queue.top();
        ASSERT_EQ(std::make_pair(rank, queue.pop()), model.begin()->first);
        model.erase(model.begin());
      }
    }
  }
}

}  // namespace
}  // namespace plumb
