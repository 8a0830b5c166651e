// Encoders against simple bounds of what a format can lose, and their bytes against recorded hashes.
#include "quant/encode.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "quant/mix.h"

namespace plumb {
namespace {

// Sums of uniform draws from a fixed generator: near Gaussian, exact in f32 everywhere.
std::vector<float> weights(int n, uint32_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) {
    int sum = 0;
    for (int k = 0; k < 8; ++k) {
      seed = seed * 1664525u + 1013904223u;
      sum += int(seed >> 20) - 2048;
    }
    v = float(sum) * 0x1p-17f;
  }
  return x;
}

std::vector<uint8_t> encoded(Format f, const std::vector<float>& x) {
  std::vector<uint8_t> bytes(size_t(row_bytes(f, int64_t(x.size()))));
  encode(f, x.data(), int64_t(x.size()), bytes.data());
  return bytes;
}

std::vector<float> decoded(Format f, const std::vector<uint8_t>& bytes, size_t n) {
  std::vector<float> y(n);
  decode(f, bytes.data(), int64_t(n), y.data());
  return y;
}

double relative_error(Format f, const std::vector<float>& x) {
  const std::vector<float> y = decoded(f, encoded(f, x), x.size());
  double error = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i)
    error += (double(y[i]) - x[i]) * (double(y[i]) - x[i]), size += double(x[i]) * x[i];
  return std::sqrt(error / size);
}

constexpr char kRecorded[] =
    "F32 56bfd1ff52da4c8c\n"
    "F16 518018833eba4f09\n"
    "Q4_0 d821f44bd42830f2\n"
    "Q4_1 5c8eafbd67b5a864\n"
    "Q5_0 92ae4c37ac92aeb5\n"
    "Q5_1 9df2a67213c12829\n"
    "Q8_0 982fca12f957c662\n"
    "Q2_K c82dc57ccd34c463\n"
    "Q3_K 23176fff20492c5f\n"
    "Q4_K bc407d9459687238\n"
    "Q5_K 82704f027f4a7ec4\n"
    "Q6_K 17c0c59e0de88274\n"
    "IQ4_NL 0ace135ee0c975d3\n"
    "IQ4_XS 21f3143eaa60ee26\n"
    "BF16 25512fb27cc3df52\n"
    "MXFP4 ebb5cc19b49f2da0\n";

std::vector<Format> encodable() {
  std::vector<Format> all;
  for (const FormatInfo& f : formats()) {
    if (can_encode(f.format)) all.push_back(f.format);
  }
  return all;
}

TEST(Encode, BytesAreTheRecordedOnesOnEveryMachine) {
  std::string found;
  for (Format f : encodable()) {
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    for (uint8_t byte : encoded(f, weights(256 * 16, 3))) hash = (hash ^ byte) * 0x100000001b3;
    found += fmt::format("{} {:016x}\n", info(f).name, hash);
  }
  EXPECT_EQ(found, kRecorded);
}

// The error of evenly spaced levels over +-3 standard deviations is a step / sqrt(12); no search may end
// above it.
TEST(Encode, GaussianWeightsLoseLessThanEvenStepsOverThreeSigmas) {
  const std::vector<float> x = weights(256 * 64, 7);
  const struct {
    Format format;
    int levels;
  } cases[] = {{Format::Q2_K, 4},  {Format::Q3_K, 8},   {Format::Q4_K, 16},   {Format::Q5_K, 32},
               {Format::Q6_K, 64}, {Format::Q4_0, 16},  {Format::Q4_1, 16},   {Format::Q5_0, 32},
               {Format::Q5_1, 32}, {Format::Q8_0, 255}, {Format::IQ4_NL, 16}, {Format::IQ4_XS, 16},
               {Format::MXFP4, 13}};
  for (const auto& c : cases)
    EXPECT_LT(relative_error(c.format, x), 6.0 / c.levels / std::sqrt(12.0)) << info(c.format).name;
}

TEST(Encode, ZerosStayZerosInEveryFormat) {
  const std::vector<float> zeros(256, 0.0f);
  for (Format f : encodable()) EXPECT_EQ(decoded(f, encoded(f, zeros), 256), zeros) << info(f).name;
}

TEST(Encode, TinyHugeAndLonelyWeightsDecodeToFiniteNumbers) {
  std::vector<float> lonely(256, 0.0f), tiny(256), huge(256);
  lonely[17] = -3.0f;
  for (size_t i = 0; i < 256; ++i) {
    tiny[i] = float(int(i) - 128) * 1e-40f;
    huge[i] = float(int(i) - 128) * 500.0f;
  }
  for (Format f : encodable()) {
    for (const auto& x : {lonely, tiny, huge}) {
      for (float y : decoded(f, encoded(f, x), 256)) EXPECT_TRUE(std::isfinite(y)) << info(f).name;
    }
  }
}

TEST(Encode, F32IsKeptBitForBit) {
  const std::vector<float> x = weights(256, 3);
  EXPECT_EQ(decoded(Format::F32, encoded(Format::F32, x), 256), x);
}

TEST(Mix, NamesAreReadInAnyCaseAndShortNamesMeanMedium) {
  EXPECT_EQ(find_file_type("q4_k")->id, 15);
  EXPECT_STREQ(find_file_type("q5_K_s")->name, "Q5_K_S");
  EXPECT_EQ(find_file_type("Q9"), nullptr);
}

TEST(Mix, RowsThatBlocksDoNotDivideTakeSmallerBlocks) {
  const MixTensor tensors[] = {{"token_embd.weight", Format::F16, 2, 576},
                               {"blk.0.attn_norm.weight", Format::F32, 1, 576},
                               {"blk.0.attn_q.weight", Format::F16, 2, 576},
                               {"blk.0.ffn_gate.weight", Format::F16, 2, 20},
                               {"blk.0.ffn_up.weight", Format::F16, 2, 512}};
  const auto choices = choose_formats(
      tensors, {.type = find_file_type("Q4_K_S"), .n_layer = 30, .output = {}, .embedding = {}});
  const Format expected[] = {Format::Q8_0, Format::F32, Format::Q5_0, Format::F16, Format::Q4_K};
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(choices[i].format, expected[i]) << tensors[i].name;
}

}  // namespace
}  // namespace plumb
