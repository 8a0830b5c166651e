// All 65,536 halves and bfloat16s against the definition in double arithmetic, and rounding at every tie.
#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace plumb {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// IEEE 754 binary16 by its definition; finite halves only.
double half_value(int h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const double magnitude = exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return h & 0x8000 ? -magnitude : magnitude;
}

uint32_t bits(float f) { return std::bit_cast<uint32_t>(f); }

TEST(Half, EveryFiniteHalfHasItsExactValueAndComesBack) {
  for (int h = 0; h < 65'536; ++h) {
    if ((h & 0x7c00) == 0x7c00) continue;
    const float f = half_to_float(uint16_t(h));
    ASSERT_EQ(double(f), half_value(h)) << h;
    ASSERT_EQ(std::signbit(f), h >= 0x8000) << h;
    ASSERT_EQ(float_to_half(f), h) << h;
  }
}

TEST(Half, InfinitiesAndNansStayWhatTheyAre) {
  EXPECT_EQ(half_to_float(0x7c00), kInfinity);
  EXPECT_EQ(half_to_float(0xfc00), -kInfinity);
  EXPECT_EQ(float_to_half(kInfinity), 0x7c00);
  EXPECT_EQ(float_to_half(-kInfinity), 0xfc00);
  for (int h = 0x7c01; h < 0x8000; ++h) {
    for (int sign : {0, 0x8000}) {
      const float f = half_to_float(uint16_t(h | sign));
      ASSERT_TRUE(std::isnan(f)) << h;
      ASSERT_EQ(bits(f) & 0x400000u, 0x400000u) << "quiet, " << h;
      ASSERT_EQ(bits(f) >> 13 & 0x1ff, uint32_t(h & 0x1ff)) << "payload, " << h;
      ASSERT_EQ(float_to_half(f), h | sign | 0x200) << h;
    }
  }
  EXPECT_EQ(float_to_half(std::bit_cast<float>(0x7f800001u)) & 0x7e00, 0x7e00)
      << "a NaN whose payload is cut off";
}

TEST(Half, BetweenTwoHalvesTheNearestIsTakenAndTheEvenOneAtATie) {
  for (int h = 0; h < 0x7bff; ++h) {
    const double low = half_value(h), high = half_value(h + 1);
    const float middle = float((low + high) / 2);  // exact: one more bit
    ASSERT_EQ(float_to_half(middle), h % 2 ? h + 1 : h) << h;
    ASSERT_EQ(float_to_half(std::nextafter(middle, 0.0f)), h) << h;
    ASSERT_EQ(float_to_half(std::nextafter(middle, kInfinity)), h + 1) << h;
    ASSERT_EQ(float_to_half(-middle), (h % 2 ? h + 1 : h) | 0x8000) << h;
  }
}

TEST(Half, From65520OnEverythingIsInfinite) {
  EXPECT_EQ(float_to_half(std::nextafter(65520.0f, 0.0f)), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-3e38f), 0xfc00);
}

TEST(Half, WhatIsBelowHalfTheSmallestSubnormalIsZeroOfItsSign) {
  EXPECT_EQ(float_to_half(0x1p-25f), 0);
  EXPECT_EQ(float_to_half(std::nextafter(0x1p-25f, 1.0f)), 1);
  EXPECT_EQ(float_to_half(-1e-45f), 0x8000);
}

TEST(Half, RoundingWithoutBranchesIsTheWayThereAndBack) {
  const auto same = [](uint32_t b) {
    const float f = std::bit_cast<float>(b);
    return bits(rounded_to_half(f)) == bits(half_to_float(float_to_half(f)));
  };
  for (uint64_t b = 0; b < uint64_t(1) << 32; b += 1013) ASSERT_TRUE(same(uint32_t(b))) << b;
  for (uint32_t h = 0; h < 65'536; ++h) {  // and around every half and every tie
    for (const uint32_t b : {h << 16, h << 16 | 0x1000, h << 16 | 0x3000, h << 16 | 0x5000}) {
      for (const uint32_t d : {0u, 1u, ~0u}) ASSERT_TRUE(same(b + d)) << b + d;
    }
  }
}

TEST(Bfloat16, EveryValueComesBackAndRoundsToNearestEven) {
  for (int b = 0; b < 0x7f7f; ++b) {
    const float low = bfloat16_to_float(uint16_t(b));
    ASSERT_EQ(bits(low), uint32_t(b) << 16);
    ASSERT_EQ(float_to_bfloat16(low), b);
    const float middle = std::bit_cast<float>(uint32_t(b) << 16 | 0x8000u);
    ASSERT_EQ(float_to_bfloat16(middle), b % 2 ? b + 1 : b);
    ASSERT_EQ(float_to_bfloat16(std::bit_cast<float>(bits(middle) - 1)), b);
    ASSERT_EQ(float_to_bfloat16(std::bit_cast<float>(bits(middle) + 1)), b + 1);
    ASSERT_EQ(float_to_bfloat16(-middle), (b % 2 ? b + 1 : b) | 0x8000);
  }
}

TEST(Bfloat16, OverflowIsInfiniteAndNanStaysNan) {
  EXPECT_EQ(float_to_bfloat16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(float_to_bfloat16(kInfinity), 0x7f80);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::bit_cast<float>(0xffffffffu)))));
}

}  // namespace
}  // namespace plumb
