#include "base/math.h"

#include <gtest/gtest.h>

#include <cmath>

namespace plumb {
namespace {

// The judge is the C library in long double.
TEST(Math, AgreesWithTheLibraryOverItsRange) {
  for (int i = 0; i < 200000; ++i) {
    const double t = i / 200000.0;
    const double x = std::exp(t * 80 - 40);
    ASSERT_NEAR(logarithm(x), double(std::log((long double)x)), 1e-15 * (1 + std::fabs(std::log(x)))) << x;
    const double e = t * 1400 - 700;
    ASSERT_NEAR(exponential(e) / double(std::exp((long double)e)), 1, 1e-15 * (1 + std::fabs(e) / 700)) << e;
    const double y = -t * 2;
    ASSERT_NEAR(power(1e6, y) / double(std::pow(1e6L, (long double)y)), 1, 1e-15 * (2 + std::fabs(y) * 14))
        << y;
    const double angle = (t * 2 - 1) * 1e6;
    double s = 0, c = 0;
    sine_cosine(angle, &s, &c);
    ASSERT_NEAR(s, double(std::sin((long double)angle)), 4e-16) << angle;
    ASSERT_NEAR(c, double(std::cos((long double)angle)), 4e-16) << angle;
  }
}

TEST(Math, EndsOfTheRangeAreZeroInfinityAndNan) {
  EXPECT_EQ(exponential(-1e9), 0);
  EXPECT_EQ(exponential(-INFINITY), 0);
  EXPECT_EQ(exponential(1e9), INFINITY);
  EXPECT_TRUE(std::isnan(exponential(NAN)));
  EXPECT_EQ(exponential(0), 1);
}

}  // namespace
}  // namespace plumb
