// Placement of buffers: whatever the lifetimes, buffers that live at the same step share no byte.
#include "plan/arena.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace plumb {
namespace {

TEST(Arena, NeverOverlapsBuffersThatLiveAtTheSameStep) {
  std::mt19937_64 r(1);
  for (int round = 0; round < 3000; ++round) {
    const int steps = 1 + int(r() % 40);
    std::vector<Lifetime> buffers(r() % 30);
    for (Lifetime& b : buffers) {
      b.first = int(r() % uint64_t(steps));
      b.last = b.first + int(r() % uint64_t(steps - b.first));
      b.bytes = int64_t(r() % 5 == 0 ? r() % 100000 : r() % 300);
    }
    const int64_t total = place(buffers);
    int64_t end = 0, sum = 0;
    for (size_t i = 0; i < buffers.size(); ++i) {
      const Lifetime& a = buffers[i];
      ASSERT_GE(a.offset, 0);
      ASSERT_EQ(a.offset % 64, 0);
      end = std::max(end, a.offset + a.bytes), sum += (a.bytes + 63) / 64 * 64;
      for (size_t j = 0; j < i; ++j) {
        const Lifetime& b = buffers[j];
        const bool together = a.first <= b.last && b.first <= a.last;
        const bool overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
        ASSERT_FALSE(together && overlap) << "round " << round << ": buffers " << j << " and " << i;
      }
    }
    ASSERT_LE(end, total);
    ASSERT_LE(total, sum);
  }
}

TEST(Arena, ReusesTheBytesOfBuffersThatAreDead) {
  std::vector<Lifetime> chain;
  for (int i = 0; i < 10; ++i) chain.push_back({i, i + 1, 1000});
  EXPECT_EQ(place(chain), 2 * 1024);
}

TEST(Arena, NothingNeedsNothing) {
  std::vector<Lifetime> none;
  EXPECT_EQ(place(none), 0);
}

}  // namespace
}  // namespace plumb
