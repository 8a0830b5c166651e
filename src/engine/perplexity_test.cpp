// Perplexity and divergence against sums written out here, and the base file against damage.
#include "engine/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "engine/logit_base.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::TinyFile;

std::vector<double> log_softmax(std::vector<double> x) {
  double sum = 0;
  for (double v : x) sum += std::exp(v);
  for (double& v : x) v -= std::log(sum);
  return x;
}

TEST(Perplexity, ScoresTheSecondHalfOfAChunkAsDecodingTokenByTokenDoes) {
  const TinyFile file({});
  const Model model(file.path(), {.threads = 2});
  const std::vector<int> chunk = prompt(13);
  std::vector<int> ids = chunk;
  ids[0] = 7;
  int64_t expected = 6;
  for (Arith arith : {Arith::fast, Arith::ref64}) {
    expected = 6;
    score_chunk(model, {.arith = arith}, chunk, 7, [&](int64_t position, std::span<const double> row) {
      ASSERT_EQ(position, expected++);
      const std::vector<int> before(ids.begin(), ids.begin() + position + 1);
      const std::vector<float> alone = testing::logits(model, {.arith = arith}, before);
      for (size_t i = 0; i < row.size(); ++i) EXPECT_EQ(float(row[i]), alone[i]);
    });
    EXPECT_EQ(expected, 12);  // the last token is only predicted
  }
}

TEST(Perplexity, ATextShorterThanTwoChunksIsRefusedUnlessOneIsAskedFor) {
  const std::vector<int> ids = prompt(23);
  EXPECT_EQ(code_of([&] { cut_text(ids, 12, -1); }), "text.short");
  EXPECT_EQ(code_of([&] { cut_text(ids, 24, 1); }), "text.short");
  EXPECT_EQ(cut_text(ids, 12, 1).size(), 1u);
  EXPECT_EQ(cut_text(ids, 5, -1).size(), 4u);
  EXPECT_EQ(cut_text(ids, 5, 3)[2], std::vector<int>(ids.begin() + 10, ids.begin() + 15));
}

TEST(Perplexity, LogSumExpIsThatOfTheDefinitionAndSurvivesLargeNumbers) {
  Pool pool(3);
  const std::vector<double> x = {1, -2, 0.5, 3, 3, -700, 2, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7};
  double sum = 0;
  for (double v : x) sum += std::exp(v);
  EXPECT_NEAR(log_sum_exp(pool, x), std::log(sum), 1e-14);
  EXPECT_NEAR(log_sum_exp(pool, std::vector<double>(5, 1e6)), 1e6 + std::log(5), 1e-9);
}

TEST(Mean, HasTheErrorOfTheDefinition) {
  Mean m;
  for (double x : {1.0, 4.0, 7.0, 2.0}) m.add(x);
  EXPECT_DOUBLE_EQ(m.mean(), 3.5);
  EXPECT_NEAR(m.error(), std::sqrt((6.25 + 0.25 + 12.25 + 2.25) / 3 / 4), 1e-15);
}

TEST(Divergence, IsThatOfTheDefinition) {
  Pool pool(2);
  Divergence d;
  const std::vector<double> p = log_softmax({1, 2, 3, 4}), q = log_softmax({1, 2, 4, 3.5}),
                            r = log_softmax({0, 0, 0, 9});
  double kl = 0;
  for (size_t i = 0; i < p.size(); ++i) kl += std::exp(p[i]) * (p[i] - q[i]);
  d.add(pool, p, q, 2), d.add(pool, p, p, 1), d.add(pool, p, r, 3);
  EXPECT_NEAR(d.percentile(0), 0, 1e-15);
  EXPECT_NEAR(d.percentile(0.5), kl, 1e-15);
  EXPECT_NEAR(d.percentile(0.25), kl / 2, 1e-15);
  EXPECT_NEAR(d.same_top().mean(), 2.0 / 3, 1e-15);
  EXPECT_NEAR(d.difference().mean(), (p[2] - q[2] + p[3] - r[3]) / 3, 1e-15);
  EXPECT_NEAR(d.base_loss().mean(), -(p[2] + p[1] + p[3]) / 3, 1e-15);
}

class LogitBaseFile : public ::testing::Test {
 protected:
  ~LogitBaseFile() override { std::filesystem::remove(path_); }

  const std::string path_ =
      std::filesystem::temp_directory_path() / ("plumb-base-" + std::to_string(getpid()));
  const std::vector<std::vector<int>> chunks_ = {{1, 2, 3, 4, 5}, {2, 2, 2, 2, 0}};

  std::string bytes() const {
    std::ifstream in(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void put(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }
  void write() const {
    write_logit_base(path_, 5, 6, chunks_, [](const auto& row) {
      for (int i = 0; i < 4; ++i) row(std::vector<double>{double(i), 1, 2, -3, 0.5, -1e9});
    });
  }
};

TEST_F(LogitBaseFile, GivesBackWhatWasWritten) {
  write();
  const LogitBase base(path_);
  EXPECT_EQ(base.n_ctx(), 5);
  EXPECT_EQ(base.chunks(), 2);
  EXPECT_EQ(base.tokens(1), chunks_[1]);
  std::vector<double> row;
  base.read(1, 1, row);
  EXPECT_EQ(row, (std::vector<double>{3, 1, 2, -3, 0.5, -1e9}));
}

TEST_F(LogitBaseFile, ReadsTheSixteenBitRowsOfLlamaPerplexity) {
  std::string file = "_logits_";
  const auto put32 = [&](auto x) { file.append(reinterpret_cast<const char*>(&x), 4); };
  for (int x : {4, 3, 1, 0, 1, 2, 1}) put32(x);
  put32(0.5f), put32(-8.0f);
  for (uint16_t x : {0, 2, 16, 0}) file.append(reinterpret_cast<const char*>(&x), 2);  // of 3, padded to 4
  put(file);
  std::vector<double> row;
  LogitBase(path_).read(0, 0, row);
  EXPECT_EQ(row, (std::vector<double>{-8, -7, 0}));
}

TEST_F(LogitBaseFile, IsRefusedWhereverItIsCutOrFalse) {
  write();
  const std::string whole = bytes();
  for (size_t cut = 0; cut < whole.size(); ++cut) {
    put(whole.substr(0, cut));
    const std::string code = code_of([&] { LogitBase base(path_); });
    EXPECT_TRUE(code == "base.truncated" || code == "base.format" || code == "file.map")
        << cut << ' ' << code;
  }
  for (size_t at = 0; at < 60; ++at) {  // magic, sizes, tokens
    for (char c : {'\x7f', '\xff'}) {
      std::string bad = whole;
      bad[at] = c;
      put(bad);
      EXPECT_NE(code_of([&] { LogitBase base(path_); }), "nothing thrown") << at;
    }
  }
  std::string bad = whole;
  bad.replace(60, 4, std::string("\0\0\xc0\x7f", 4));  // NaN
  put(bad);
  std::vector<double> row;
  EXPECT_EQ(code_of([&] { LogitBase(path_).read(0, 0, row); }), "base.nonfinite");
}

TEST_F(LogitBaseFile, LeavesNothingWhenTheRunFails) {
  EXPECT_EQ(code_of([&] {
              write_logit_base(path_, 5, 6, chunks_, [](const auto& row) {
                row(std::vector<double>(6));
                throw Error({.code = "run.cancelled"});
              });
            }),
            "run.cancelled");
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace plumb
