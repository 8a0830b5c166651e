#include "trace/probe.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "trace/probe_fit.h"
#include "trace/probe_model.h"
#include "trace/test_support.h"

namespace plumb::trace {
namespace {

using plumb::testing::code_of;

TEST(ProbeFit, StatesWithoutADirectionAreRefused) {
  std::vector<double> zeros(4), nan = {1, NAN, 0, 0}, infinite = {1, INFINITY, 0, 0}, fine = {3, 0, 4, 0};
  EXPECT_FALSE(to_unit(zeros));
  EXPECT_FALSE(to_unit(nan));
  EXPECT_FALSE(to_unit(infinite));
  ASSERT_TRUE(to_unit(fine));
  EXPECT_DOUBLE_EQ(fine[0], 0.6);
  EXPECT_DOUBLE_EQ(fine[2], 0.8);
}

TEST(ProbeFit, StatesThatLieCloseTogetherStillGiveOneAndZero) {
  // Two classes at an angle of 0.02, a third elsewhere, in four dimensions.
  std::vector<ProbeSample> samples = {
      {{1, 0, 0, 0}, 0}, {{std::cos(0.02), std::sin(0.02), 0, 0}, 1}, {{0, 0, 1, 0}, 2}};
  const std::vector<double> w = fit_head(samples, 3, 4, 1e-9);
  for (const ProbeSample& s : samples) {
    for (int c = 0; c < 3; ++c) {
      double sum = 0;
      for (size_t i = 0; i < 4; ++i) sum += w[size_t(c) * 4 + i] * s.state[i];
      EXPECT_NEAR(sum, c == s.target ? 1 : 0, 1e-4) << c << " of " << s.target;
    }
  }
}

TEST(ProbeModel, TheSameSeedGivesTheSameBytesAndNamesBecomePieces) {
  const ProbeModel m{.formats = {Format::Q8_0, Format::Q4_K}};
  EXPECT_EQ(m.bytes({}, {}), m.bytes({}, {}));
  const std::vector<uint8_t> bytes = m.bytes({{ProbeModel::kOk, "ok"}, {400, "F1-rope-style"}}, {});
  const Gguf file = Gguf::parse(bytes, "probe");
  const Tokenizer t = Tokenizer::load(file);
  EXPECT_EQ(t.size(), ProbeModel::kVocab);
  EXPECT_EQ(t.piece(400), " F1-rope-style");
  EXPECT_EQ(t.decode(t.encode(kProbePrompt)), kProbePrompt);
  for (int id : t.encode(kProbePrompt)) EXPECT_LT(id, ProbeModel::kBack);
}

TEST(ProbeFile, AnInterruptLeavesNoFile) {
  const plumb::testing::Folder folder;
  std::atomic<bool> cancel = true;
  const std::string path = folder.path + "/probe.gguf";
  EXPECT_EQ(code_of([&] { write_probe_file(path, {.cancel = &cancel}); }), "run.cancelled");
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace plumb::trace
