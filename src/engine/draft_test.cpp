// Drafts by lookup: the latest place of the longest ending; lengths that follow what was accepted.
#include "engine/draft.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace plumb {
namespace {

size_t draft(std::vector<int> ids) { return find_draft(ids); }

TEST(Draft, BeginsAfterTheLatestPlaceOfTheLongestEnding) {
  EXPECT_EQ(draft({1, 2, 3, 1, 2}), 2u);
  EXPECT_EQ(draft({1, 2, 7, 1, 2, 8, 1, 2}), 5u) << "the latest";
  EXPECT_EQ(draft({5, 1, 2, 7, 1, 2, 8, 5, 1, 2}), 3u) << "three ids rather than two";
  EXPECT_EQ(draft({4, 4, 4, 4}), 3u) << "places may overlap";
}

TEST(Draft, IsAbsentWithoutARepetitionOfTwo) {
  for (const std::vector<int>& ids : {std::vector<int>{}, {1}, {1, 1}, {1, 2, 3}, {1, 2, 3, 2}})
    EXPECT_EQ(draft(ids), ids.size());
}

TEST(Draft, IsWhatAPlainSearchFinds) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::vector<int> ids(random() % 40);
    for (int& id : ids) id = int(random() % 3);
    size_t expected = ids.size();
    for (size_t n = 4; n >= 2 && expected == ids.size(); --n) {
      for (size_t end = ids.size() - 1; ids.size() > n && end >= n; --end) {
        if (std::equal(ids.end() - long(n), ids.end(), ids.begin() + long(end - n))) {
          expected = end;
          break;
        }
      }
    }
    ASSERT_EQ(find_draft(ids), expected) << round;
  }
}

TEST(DraftLength, GrowsWhileAllIsAcceptedAndStaysWithinItsLimit) {
  DraftLength d(9);
  int last = 0;
  for (int i = 0; i < 10; ++i) {
    const int n = d.next();
    EXPECT_GE(n, last);
    EXPECT_LE(n, 9);
    d.result(last = n, n);
  }
  EXPECT_EQ(d.next(), 9);
  d.result(9, 2);
  EXPECT_EQ(d.next(), 3) << "as many as were right, and one";
}

TEST(DraftLength, FallsToNothingWhileDraftsAreWrongAndTriesAgain) {
  DraftLength d(8);
  int drafted = 0, steps = 1000;
  for (int i = 0; i < steps; ++i) {
    const int n = d.next();
    if (n > 0) d.result(n, 0);
    drafted += n;
  }
  EXPECT_GT(drafted, 0);
  EXPECT_LT(drafted, steps / 20);
}

}  // namespace
}  // namespace plumb
