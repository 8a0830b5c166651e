#include "base/pool.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(Pool, EveryUnitOfEveryStepIsDoneExactlyOnceForAnyNumberOfThreads) {
  for (int threads : {1, 2, 3, 7}) {
    Pool pool(threads);
    constexpr int kSteps = 200, kUnits = 37;
    std::vector<std::atomic<int>> done(kSteps * kUnits);
    for (int round = 0; round < 20; ++round) {
      pool.run([&](int) {
        for (int s = 0; s < kSteps; ++s) {
          for (int u; (u = pool.claim(kUnits)) >= 0;) done[s * kUnits + u].fetch_add(1);
          pool.barrier();
        }
      });
      for (auto& d : done) ASSERT_EQ(d.load(), round + 1);
    }
  }
}

TEST(Pool, AStepSeesAllWritesOfTheStepBefore) {
  Pool pool(3);
  std::vector<int> a(1000, 0);
  std::atomic<int> wrong = 0;
  pool.run([&](int) {
    for (int s = 1; s <= 100; ++s) {
      for (int u; (u = pool.claim(1000)) >= 0;) a[u] += 1;
      pool.barrier();
      for (int u; (u = pool.claim(1000)) >= 0;) wrong += a[999 - u] != s;
      pool.barrier();
    }
  });
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace plumb
