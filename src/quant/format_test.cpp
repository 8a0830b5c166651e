// The format table, and one block per format decoded by hand from the formula. Bytes are set by their offset,
// so the layout of the structs is tested too; tests/quant_oracle_test.py compares with independent
// implementations.
#include "quant/format.h"

#include <gmock/gmock.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <set>
#include <utility>
#include <vector>

namespace plumb {
namespace {

constexpr int kOne = 0x3C, kTwo = 0x40,
              kHalf = 0x38;  // upper bytes of f16 1, 2 and 0.5; the lower bytes are 0

/// Decodes one block whose bytes are zero but for those given as (offset, byte).
std::vector<float> block(Format format, std::initializer_list<std::pair<int, int>> bytes) {
  const FormatInfo& f = info(format);
  std::vector<uint8_t> data(f.bytes);
  for (auto [offset, byte] : bytes) data.at(offset) = uint8_t(byte);
  std::vector<float> out(f.block);
  decode(format, data.data(), f.block, out.data());
  return out;
}

TEST(FormatTable, FindsEveryRowByIdAndByName) {
  std::set<uint32_t> ids;
  for (const FormatInfo& f : formats()) {
    EXPECT_EQ(find_format(uint32_t(f.format)), &f);
    EXPECT_EQ(find_format(std::string_view(f.name)), &f);
    EXPECT_EQ(&info(f.format), &f);
    EXPECT_TRUE(ids.insert(uint32_t(f.format)).second) << f.name;
  }
  EXPECT_EQ(ids.size(), 26u);
}

TEST(FormatTable, HasNoRowForUnknownIdsAndNames) {
  for (uint32_t id : {4u, 5u, 9u, 15u, 24u, 31u, 33u, 36u, 38u, 40u, 0xffffffffu}) {
    EXPECT_EQ(find_format(id), nullptr) << id;
  }
  for (std::string_view name : {"", "q4_0", "Q4_2", "Q4_K_M", "Q4_0 "})
    EXPECT_EQ(find_format(name), nullptr) << name;
}

TEST(FormatTable, RowBytesAreBlocksTimesBytes) {
  EXPECT_EQ(row_bytes(Format::Q4_K, 1024), 4 * 144);
  EXPECT_EQ(row_bytes(Format::F16, 7), 14);
  EXPECT_EQ(row_bytes(Format::Q8_0, 0), 0);
  EXPECT_EQ(row_bytes(Format::F64, int64_t{1} << 40), int64_t{1} << 43);
}

TEST(Decode, WritesEveryBlockOfARowAtAnyAlignment) {
  std::vector<uint8_t> data(1 + 3 * 34);
  for (int b = 0; b < 3; ++b) {
    data[1 + 34 * b + 1] = kOne;
    for (int i = 0; i < 32; ++i) data[1 + 34 * b + 2 + i] = uint8_t(32 * b + i);
  }
  std::vector<float> out(97, -1.0f);
  decode(Format::Q8_0, data.data() + 1, 96, out.data());
  for (int i = 0; i < 96; ++i) EXPECT_EQ(out[i], float(i));
  EXPECT_EQ(out[96], -1.0f);
}

TEST(Decode, F64IsRoundedToNearestAndOverflowsToInfinity) {
  const double values[] = {1.0 + 0x1p-24, 1.0 + 0x1.8p-23, 1e300, -1e300, 0x1p-149, 0x1p-151, -0.0};
  float out[7];
  decode(Format::F64, reinterpret_cast<const uint8_t*>(values), 7, out);
  const float inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(out, testing::ElementsAre(1.0f, 1.0f + 0x1p-22f, inf, -inf, 0x1p-149f, 0.0f, 0.0f));
  EXPECT_TRUE(std::signbit(out[6]));
}

TEST(Decode, FloatsKeepTheirValue) {
  EXPECT_EQ(block(Format::F32, {{2, 0x80}, {3, 0xBF}})[0], -1.0f);
  EXPECT_EQ(block(Format::F16, {{0, 0x01}})[0], 0x1p-24f);
  EXPECT_EQ(block(Format::F16, {{0, 0xFF}, {1, 0x7B}})[0], 65504.0f);
  EXPECT_EQ(block(Format::BF16, {{0, 0x49}, {1, 0x40}})[0], 3.140625f);
  EXPECT_TRUE(std::isnan(block(Format::F16, {{0, 0x01}, {1, 0x7C}})[0]));
}

TEST(Decode, Q4_0HasLowNibblesFirstAndAnOffsetOf8) {
  const auto w = block(Format::Q4_0, {{1, kHalf}, {2, 0xF3}});
  EXPECT_EQ(w[0], -2.5f);
  EXPECT_EQ(w[16], 3.5f);
  EXPECT_EQ(w[1], -4.0f);
}

TEST(Decode, Q4_1AddsTheMinimum) {
  const auto w = block(Format::Q4_1, {{1, kTwo}, {3, 0xBC}, {4 + 5, 0x92}});
  EXPECT_EQ(w[5], 3.0f);
  EXPECT_EQ(w[21], 17.0f);
  EXPECT_EQ(w[0], -1.0f);
}

TEST(Decode, Q5_0TakesTheFifthBitFromQh) {
  const auto w = block(Format::Q5_0, {{1, kOne}, {2, 0x01}, {5, 0x80}, {6, 0x21}, {21, 0x40}});
  EXPECT_EQ(w[0], 1.0f);
  EXPECT_EQ(w[16], -14.0f);
  EXPECT_EQ(w[15], -16.0f);
  EXPECT_EQ(w[31], 4.0f);
}

TEST(Decode, Q5_1TakesTheFifthBitFromQhAndAddsTheMinimum) {
  const auto w = block(Format::Q5_1, {{1, 0x34}, {3, 0x42}, {5, 0x02}, {8 + 9, 0x57}});
  EXPECT_EQ(w[9], 8.75f);
  EXPECT_EQ(w[25], 4.25f);
  EXPECT_EQ(w[0], 3.0f);
}

TEST(Decode, Q8_0IsSigned) {
  const auto w = block(Format::Q8_0, {{1, 0xC0}, {2, 0x80}, {33, 0x7F}});
  EXPECT_EQ(w[0], 256.0f);
  EXPECT_EQ(w[31], -254.0f);
}

TEST(Decode, Q2_KSubtractsTheMinimumOfTheGroup) {
  const auto w = block(Format::Q2_K, {{9, 0xA3}, {16 + 50, 2}, {81, kOne}, {83, kHalf}});
  EXPECT_EQ(w[146], 1.0f);
  EXPECT_EQ(w[144], -5.0f);
  EXPECT_EQ(w[143], 0.0f);
}

TEST(Decode, Q3_KHasSixBitScalesAndAnInvertedHighBit) {
  const auto w =
      block(Format::Q3_K, {{1, 0x08}, {32 + 1, 0x80}, {96 + 6, 0x05}, {96 + 10, 0x0C}, {109, kOne}});
  EXPECT_EQ(w[97], 42.0f);
  EXPECT_EQ(w[96], -84.0f);
  EXPECT_EQ(w[0], 128.0f);
}

TEST(Decode, Q4_KGathersScaleAndMinimumOfTheUpperGroups) {
  const auto w =
      block(Format::Q4_K, {{1, kTwo}, {3, kOne}, {5, 0xC0}, {9, 0x80}, {13, 0x4B}, {16 + 67, 0x70}});
  EXPECT_EQ(w[163], 790.0f);
  EXPECT_EQ(w[160], -36.0f);
  EXPECT_EQ(w[32], 0.0f);
}

TEST(Decode, Q5_KAddsTheFifthBitOfQh) {
  const auto w =
      block(Format::Q5_K,
            {{1, kTwo}, {3, kOne}, {5, 0xC0}, {9, 0x80}, {13, 0x4B}, {16 + 3, 0x20}, {48 + 67, 0x70}});
  EXPECT_EQ(w[163], 2678.0f);
  EXPECT_EQ(w[160], -36.0f);
}

TEST(Decode, Q6_KHasSignedScalesAndAnOffsetOf32) {
  const auto w = block(Format::Q6_K, {{72, 0x90}, {128 + 40, 0x30}, {192 + 12, 0xFD}, {209, kHalf}});
  EXPECT_EQ(w[200], -37.5f);
  EXPECT_EQ(w[201], 48.0f);
  EXPECT_EQ(w[0], 0.0f);
}

TEST(Decode, IQ4_NLLooksUpUnevenValues) {
  const auto w = block(Format::IQ4_NL, {{1, kOne}, {2, 0xF0}});
  EXPECT_EQ(w[0], -127.0f);
  EXPECT_EQ(w[16], 113.0f);
}

TEST(Decode, IQ4_XSHasSixBitScales) {
  const auto w = block(Format::IQ4_XS, {{1, kOne}, {2, 0x80}, {5, 0x70}, {8 + 49, 0x2A}});
  EXPECT_EQ(w[97], 175.0f);
  EXPECT_EQ(w[113], -581.0f);
}

TEST(Decode, MXFP4ScalesByAPowerOfTwoDownToSubnormals) {
  const auto w = block(Format::MXFP4, {{0, 128}, {1, 0xF1}});
  EXPECT_EQ(w[0], 1.0f);
  EXPECT_EQ(w[16], -12.0f);
  EXPECT_EQ(block(Format::MXFP4, {{0, 0}, {1, 1}})[0], 0x1p-128f);
  EXPECT_EQ(block(Format::MXFP4, {{0, 1}, {1, 1}})[0], 0x1p-127f);
  EXPECT_EQ(block(Format::MXFP4, {{0, 2}, {1, 1}})[0], 0x1p-126f);
}

TEST(Decode, TQ1_0ReadsBase3DigitsFromTheTop) {
  // Digits 2 0 1 2 1 are 178 of 243; 178 * 256 / 243 rounded up is 188.
  const auto w = block(Format::TQ1_0, {{0, 188}, {32 + 5, 188}, {48 + 1, 188}, {53, kOne}});
  const float digits[] = {1, -1, 0, 1, 0};
  for (int n = 0; n < 5; ++n) {
    EXPECT_EQ(w[32 * n], digits[n]) << n;
    EXPECT_EQ(w[160 + 16 * n + 5], digits[n]) << n;
  }
  for (int n = 0; n < 4; ++n) EXPECT_EQ(w[241 + 4 * n], digits[n]) << n;
}

TEST(Decode, TQ2_0ReadsTwoBitsFromTheBottom) {
  const auto w = block(Format::TQ2_0, {{33, 0xE4}, {65, kOne}});
  EXPECT_EQ(w[129], -1.0f);
  EXPECT_EQ(w[161], 0.0f);
  EXPECT_EQ(w[193], 1.0f);
  EXPECT_EQ(w[225], 2.0f);
}

// Codeword 0 of each grid is the lowest level everywhere; codeword 1 has one higher weight, the first.

TEST(Decode, IQ2_XXSHasAnEvenNumberOfMinusSigns) {
  const auto w = block(Format::IQ2_XXS, {{1, kOne}, {2, 1}, {6, 1}, {9, 0x30}});
  EXPECT_EQ(w[0], -37.625f);
  EXPECT_EQ(w[1], 7.0f);
  EXPECT_EQ(w[7], -7.0f);
  EXPECT_EQ(w[32], 1.0f);
}

TEST(Decode, IQ2_XSHasAScalePerSixteenWeights) {
  const auto w = block(Format::IQ2_XS, {{1, kOne}, {6, 1}, {7, 6}, {66, 0x20}});
  EXPECT_EQ(w[16], -26.875f);
  EXPECT_EQ(w[17], -5.0f);
  EXPECT_EQ(w[18], 5.0f);
  EXPECT_EQ(w[0], 1.0f);
}

TEST(Decode, IQ2_SHasASignBitPerWeight) {
  const auto w = block(Format::IQ2_S, {{1, kOne}, {2, 1}, {34, 0x04}});
  EXPECT_EQ(w[0], 5.375f);
  EXPECT_EQ(w[1], 1.0f);
  EXPECT_EQ(w[2], -1.0f);
}

TEST(Decode, IQ3_XXSSharesASignCodeBetweenTwoCodewords) {
  const auto w = block(Format::IQ3_XXS, {{1, kOne}, {3, 1}, {66, 0x10}});
  EXPECT_EQ(w[4], -5.0f);
  EXPECT_EQ(w[5], 1.0f);
  EXPECT_EQ(w[7], -1.0f);
  EXPECT_EQ(w[0], 1.0f);
}

TEST(Decode, IQ3_SHasOddScales) {
  const auto w = block(Format::IQ3_S, {{1, kOne}, {2, 1}, {74, 1}, {106, 2}});
  EXPECT_EQ(w[0], -15.0f);
  EXPECT_EQ(w[1], 5.0f);
}

TEST(Decode, IQ1_SShiftsTheGridDownWhenTheTopBitIsSet) {
  const auto w = block(Format::IQ1_S, {{1, kOne}, {2, 1}, {35, 0xA0}});
  EXPECT_EQ(w[0], 4.375f);
  EXPECT_EQ(w[1], -5.625f);
  EXPECT_EQ(w[32], -0.875f);
}

TEST(Decode, IQ1_MGathersItsScaleFromFourNibbles) {
  const auto w = block(Format::IQ1_M, {{1, 1}, {32, 0x80}, {48, 3}, {53, 0xC0}, {55, 0x30}});
  EXPECT_EQ(w[8], 6.125f);
  EXPECT_EQ(w[9], -7.875f);
  EXPECT_EQ(w[0], -6.125f);
}

}  // namespace
}  // namespace plumb
