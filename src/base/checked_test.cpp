#include "base/checked.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

constexpr uint64_t kMax = UINT64_MAX;

TEST(Checked, SumsThatFitAreExactAndOthersAreNothing) {
  EXPECT_EQ(checked_add(2, 3), 5u);
  EXPECT_EQ(checked_add(kMax, 0), kMax);
  EXPECT_EQ(checked_add(kMax - 5, 5), kMax);
  EXPECT_EQ(checked_add(kMax, 1), std::nullopt);
  EXPECT_EQ(checked_add(uint64_t(1) << 63, uint64_t(1) << 63), std::nullopt);
}

TEST(Checked, ProductsThatFitAreExactAndOthersAreNothing) {
  EXPECT_EQ(checked_mul(6, 7), 42u);
  EXPECT_EQ(checked_mul(kMax, 0), 0u);
  EXPECT_EQ(checked_mul(kMax, 1), kMax);
  EXPECT_EQ(checked_mul(uint64_t(1) << 32, (uint64_t(1) << 32) - 1), kMax - ((uint64_t(1) << 32) - 1));
  EXPECT_EQ(checked_mul(uint64_t(1) << 32, uint64_t(1) << 32), std::nullopt);
  EXPECT_EQ(checked_mul(3, 0x5555555555555556), std::nullopt);
}

}  // namespace
}  // namespace plumb
