// Sequences that share passes on a device get the bits that each gets alone on the CPU: always with the
// kernels on a processor, and on the device where there is one.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "cuda/device_test.h"
#include "engine/backend_check.h"
#include "engine/sequences.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::same_bits;
using testing::TinyFile;
using Want = Sequences::Want;
using SequenceRows = std::map<std::pair<int, int64_t>, std::vector<float>>;  // by sequence and position

class CudaSequencesOf : public CudaDeviceTest {
 protected:
  RunnerOptions device(Rounding rounding = Rounding::int16) const {
    return {.backend = Backend::cuda, .n_ctx = 512, .n_ubatch = 64, .rounding = rounding, .cuda_api = api_};
  }

  static std::vector<float> alone(const Model& model, const std::vector<int>& ids, Rounding rounding) {
    return testing::logits(model, {.rounding = rounding}, ids);
  }

  static SequenceRows decode(Sequences& s, const std::vector<Sequences::Piece>& pieces) {
    SequenceRows rows;
    s.decode(pieces, [&](int sequence, int64_t position, std::span<const float> l) {
      rows.emplace(std::pair(sequence, position), std::vector<float>(l.begin(), l.end()));
    });
    return rows;
  }

  // One more token for each sequence, all together, after which each must be as on the CPU alone.
  static void step(const Model& model, Sequences& s, std::vector<std::vector<int>>& texts,
                   Rounding rounding) {
    std::vector<Sequences::Piece> pieces;
    for (size_t i = 0; i < texts.size(); ++i) {
      texts[i].push_back((texts[i].back() * 5 + int(i)) % model.n_vocab());
      pieces.push_back({int(i), std::span(texts[i]).last(1)});
    }
    const SequenceRows rows = decode(s, pieces);
    for (size_t i = 0; i < texts.size(); ++i) {
      EXPECT_TRUE(
          same_bits(rows.at({int(i), int64_t(texts[i].size()) - 1}), alone(model, texts[i], rounding)))
          << "sequence " << i << " of " << texts.size();
    }
  }
};

TEST_P(CudaSequencesOf, PromptsAndAnswersOfSeveralHaveTheBitsOfEachAloneOnTheCpu) {
  for (const char* arch : {"llama", "qwen3", "gemma3"}) {
    const TinyFile file({.arch = arch, .format = Format::Q4_0});
    const Model model(file.path(), {.threads = 2});
    std::vector<std::vector<int>> texts = {prompt(11, 1), prompt(4, 2), prompt(270, 3)};
    Sequences s(model, device(), 3);
    const SequenceRows prompts =
        decode(s, {{2, texts[2], Want::last}, {0, texts[0], Want::none}, {1, texts[1], Want::all}});
    EXPECT_EQ(prompts.size(), 5u);
    EXPECT_TRUE(same_bits(prompts.at({2, 269}), alone(model, texts[2], Rounding::int16))) << arch;
    EXPECT_TRUE(same_bits(prompts.at({1, 3}), alone(model, texts[1], Rounding::int16))) << arch;
    step(model, s, texts, Rounding::int16);
    step(model, s, texts, Rounding::int16);  // the graph of the first
  }
}

TEST_P(CudaSequencesOf, APromptBesideAnswersChangesNeither) {
  const TinyFile file({.format = Format::Q4_0});
  const Model model(file.path(), {.threads = 2});
  for (Rounding rounding : {Rounding::int8, Rounding::refined}) {
    const std::vector<std::vector<int>> texts = {prompt(7, 1), prompt(9, 2), prompt(40, 3)};
    Sequences s(model, device(rounding), 3);
    decode(s, {{0, std::span(texts[0]).first(6)}, {1, std::span(texts[1]).first(8)}});
    const SequenceRows rows =
        decode(s, {{0, std::span(texts[0]).last(1)}, {1, std::span(texts[1]).last(1)}, {2, texts[2]}});
    for (size_t i = 0; i < 3; ++i) {
      const int64_t last = int64_t(texts[i].size()) - 1;
      EXPECT_TRUE(same_bits(rows.at({int(i), last}), alone(model, texts[i], rounding))) << i;
    }
  }
}

TEST_P(CudaSequencesOf, AnyNumberTogetherHasTheBitsOfOne) {
  const TinyFile file({.format = Format::Q4_0});
  const Model model(file.path(), {.threads = 2});
  for (int count : {1, 2, 8, 9, 17, 33}) {  // one octet, two, another block, more than share a pass
    Sequences s(model, device(), count);
    std::vector<std::vector<int>> texts;
    std::vector<Sequences::Piece> pieces;
    for (int i = 0; i < count; ++i) texts.push_back(prompt(1 + i % 3, i));
    for (int i = 0; i < count; ++i) pieces.push_back({i, texts[size_t(i)], Want::none});
    decode(s, pieces);
    step(model, s, texts, Rounding::int16);
  }
}

// In halves both factors are rounded to f16, 2^-12 each, as in prompts: less than a tenth of int8's bound,
// which is 3 f sqrt(3 (ln 2L + 0.6)) with f = 0.55 % (docs/numerics.md).
TEST_P(CudaSequencesOf, InHalvesSeveralTogetherLieWithinTheBoundOfTheCpu) {
  const double bound = 3 * 0.0055 * std::sqrt(3 * (std::log(2.0) + 0.6));
  for (Format format : {Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::Q4_K,
                        Format::Q5_K, Format::Q6_K}) {
    const TinyFile file({.format = format, .width = 256, .layers = 1, .encoded = true});
    const Model model(file.path(), {.threads = 2});
    RunnerOptions options = device();
    options.cuda_f16 = true;
    for (int count : {3, 11}) {
      Sequences s(model, options, count);
      std::vector<std::vector<int>> texts;
      std::vector<Sequences::Piece> first, next;
      for (int i = 0; i < count; ++i) texts.push_back(prompt(6, i));
      for (int i = 0; i < count; ++i) first.push_back({i, std::span(texts[size_t(i)]).first(5), Want::none});
      for (int i = 0; i < count; ++i) next.push_back({i, std::span(texts[size_t(i)]).last(1)});
      decode(s, first);
      const SequenceRows rows = decode(s, next);
      for (int i = 0; i < count; ++i) {
        const std::vector<float> want = alone(model, texts[size_t(i)], Rounding::int16);
        EXPECT_LT(relative_difference<float>(rows.at({i, 5}), want), bound / 10)
            << info(format).name << " " << i;
      }
    }
  }
}

TEST_P(CudaSequencesOf, TextsThatShareTheirBeginningsAndWhatWasForgottenLeaveNoTrace) {
  const TinyFile file({.format = Format::Q4_0});
  const Model model(file.path(), {.threads = 2});
  const std::vector<int> text = prompt(300, 4), wrong = prompt(290, 5);
  Sequences s(model, device(), 2);
  decode(s, {{0, std::span(text).first(280)}, {1, wrong}});
  s.start_from(1, s.cache(0), 260);  // a whole page shared, the next one copied
  const SequenceRows shared = decode(s, {{1, std::span(text).subspan(260)}});
  EXPECT_TRUE(same_bits(shared.at({1, 299}), alone(model, text, Rounding::int16)));
  s.truncate(1, 3);  // writes into the page that is shared, which the other must not see
  decode(s, {{1, std::span(wrong).first(200)}});
  const SequenceRows other = decode(s, {{0, std::span(text).subspan(280)}});
  EXPECT_TRUE(same_bits(other.at({0, 299}), alone(model, text, Rounding::int16)));
  const KvCache held = s.take(0);
  EXPECT_EQ(s.length(0), 0);
  s.start_from(0, held, 299);
  EXPECT_TRUE(same_bits(decode(s, {{0, std::span(text).last(1)}}).at({0, 299}), other.at({0, 299})));
}

TEST_P(CudaSequencesOf, LayersLeftToTheCpuAreRefused) {
  const TinyFile file({});
  const Model model(file.path(), {});
  RunnerOptions options = device();
  options.device_layers = 1;
  EXPECT_EQ(code_of([&] { Sequences(model, options, 2); }), "usage.backend");
}

INSTANTIATE_TEST_SUITE_P(OnProcessor, CudaSequencesOf, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDevice, CudaSequencesOf, ::testing::Values(true));

}  // namespace
}  // namespace plumb
