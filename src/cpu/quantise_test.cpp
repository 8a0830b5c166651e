// Rounding of activations: the formulas of docs/numerics.md written out again, equal on every instruction
// set.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpu/test_support.h"

namespace plumb {
namespace {

using testing::Activations;
using testing::CodedRow;
using testing::Random;

constexpr Rounding kAllRoundings[] = {Rounding::int8, Rounding::refined, Rounding::int16};

// Runs quantise of all rows on one instruction set; whether the flag was raised.
bool quantise_rows(Isa isa, const std::vector<float>& x, Activations& a) {
  FaultFlag flag = false;
  for (int t = 0; t < a.n; ++t)
    kernels(isa).quantise(&x[size_t(t) * a.columns], a.x8, a.columns, a.n, t, &flag);
  return flag;
}

float largest(const float* x, int n) {
  float m = 0;
  for (int k = 0; k < n; ++k) m = std::max(m, std::fabs(x[k]));
  return m;
}

// One row by the formula. Refined: the first four columns of a window that hold its largest magnitude A give
// up r = nearest(x 127/A) at scale A/127; their block is then rounded by what is left.
CodedRow formula(std::vector<float> x, Rounding rounding) {
  const int columns = int(x.size()), most = rounding == Rounding::int16 ? kLargestCode : 127;
  CodedRow row;
  std::vector<float> of_block;
  for (int b = 0; b < columns / 32; ++b) of_block.push_back(largest(&x[size_t(32 * b)], 32));
  for (int w = 0; rounding == Rounding::refined && w * kWindow < columns; ++w) {
    const int first = w * kWindow, count = std::min(kWindow, columns - first);
    const float a = largest(&x[size_t(first)], count);
    row.refined_at.push_back(first / 4), row.refined.push_back({}), row.refined_scales.push_back(0);
    if (a < 0x1p-100f) continue;
    int four = first;
    while (largest(&x[size_t(four)], 4) < a) four += 4;
    const int block = four / 32;
    float rest = a / 254;
    for (int k = 32 * block; k < 32 * block + 32; ++k) {
      if (k / 4 != four / 4) rest = std::max(rest, std::fabs(x[size_t(k)]));
    }
    of_block[size_t(block)] = rest;
    row.refined_at.back() = four / 4, row.refined_scales.back() = a / 127;
    for (int k = 0; k < 4; ++k) {
      float& v = x[size_t(four + k)];
      const float q = std::nearbyint(v * (127 / a));
      row.refined.back()[size_t(k)] = int(q);
      v = std::fmaf(-(a / 127), q, v);
    }
  }
  for (int b = 0; b < columns / 32; ++b) {
    const float a = of_block[size_t(b)];
    const bool zero = a < 0x1p-100f;
    row.scales.push_back(zero ? 0 : a / float(most));
    for (int k = 0; k < 32; ++k) {
      const float v = x[size_t(32 * b + k)];
      row.codes.push_back(zero ? 0 : int(std::nearbyint(v * (float(most) / a))));
    }
  }
  return row;
}

TEST(Quantise, FollowsTheFormulaOnEveryIsaInTheLayoutOfX8) {
  Random r(1);
  for (Rounding rounding : kAllRoundings) {
    for (int columns : {32, 96, 128, 160, 576}) {
      for (int n : {1, 2, 5, 6, 7, 13, 31}) {
        std::vector<float> x;
        for (int b = 0; b < n * columns / 32; ++b) {
          const float sizes[] = {0, 1e-38f, 0x1p-101f, 0x1p-99f, 1e-3f, 1, 1e5f, 1e36f};
          for (float v : testing::normals(r, 32, sizes[testing::up_to(r, 7)]))
            x.push_back(testing::up_to(r, 60) == 0 ? v * 50 : v);
        }
        Activations expected(n, columns, rounding);
        for (int t = 0; t < n; ++t)
          expected.set(t, formula({&x[size_t(t * columns)], &x[size_t(t * columns)] + columns}, rounding));
        for (Isa isa : testing::isas()) {
          Activations a(n, columns, rounding);
          EXPECT_FALSE(quantise_rows(isa, x, a));
          ASSERT_TRUE(a.memory == expected.memory)
              << name(isa) << " n=" << n << " columns " << columns << " rounding " << int(rounding);
        }
      }
    }
  }
}

TEST(Quantise, LeavesAtMostHalfAStepOfTheBlocksScale) {
  Random r(2);
  for (Rounding rounding : kAllRoundings) {
    const int columns = 256;
    std::vector<float> x = testing::normals(r, columns);
    x[5] = 300, x[130] = -80, x[131] = 79, x[200] = 12;
    Activations a(1, columns, rounding);
    quantise_rows(Isa::scalar, x, a);
    for (int k = 0; k < columns; ++k) {
      const float s = a.x8.scales[k / 32];
      double y = double(s) * a.code(0, k);
      for (int w = 0; rounding == Rounding::refined && w < 2; ++w) {
        if (a.x8.refined_at[w] == k / 4)
          y += double(a.x8.refined_scales[w]) * reinterpret_cast<int8_t*>(a.x8.refined_codes + w)[k % 4];
      }
      EXPECT_LE(std::fabs(y - x[size_t(k)]), s * 0.50001) << k << " rounding " << int(rounding);
    }
    if (rounding == Rounding::refined) {
      EXPECT_LT(a.x8.scales[0], 4.0f / 127) << "the outlier is refined and leaves its block";
    }
  }
}

TEST(Quantise, RoundsTiesToEven) {
  std::vector<float> x(32);
  x[0] = 32384, x[1] = 0.5f, x[2] = 1.5f, x[3] = -2.5f, x[4] = -3.5f, x[5] = -32382.5f;
  for (Isa isa : testing::isas()) {
    Activations a(1, 32, Rounding::int16);
    quantise_rows(isa, x, a);
    const int expected[6] = {32384, 0, 2, -2, -4, -32382};
    for (int k = 0; k < 6; ++k) EXPECT_EQ(a.code(0, k), expected[k]) << name(isa);
  }
}

TEST(Quantise, RaisesTheFlagForWhatIsNotFiniteAndStoresZeros) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (float bad : {kInfinity, -kInfinity, std::nanf(""), -std::nanf("")}) {
    for (int at : {0, 15, 16, 31, 63, 95}) {
      std::vector<float> x(96, 1.0f);
      x[size_t(at)] = bad;
      for (Isa isa : testing::isas()) {
        for (Rounding rounding : kAllRoundings) {
          Activations a(1, 96, rounding);
          EXPECT_TRUE(quantise_rows(isa, x, a)) << name(isa) << " " << bad << " at " << at;
          for (int k = 0; k < 96; ++k) EXPECT_EQ(a.code(0, k), 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace plumb
