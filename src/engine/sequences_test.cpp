// Sequences that are advanced together get what they get alone, whatever shares the pass with them.
#include "engine/sequences.h"

#include <gtest/gtest.h>

#include <map>

#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::same_bits;
using testing::TinyFile;
using Want = Sequences::Want;
using SequenceRows = std::map<std::pair<int, int64_t>, std::vector<float>>;  // by sequence and position

std::vector<float> alone(const Model& model, const std::vector<int>& ids) {
  return testing::logits(model, {}, ids);
}

std::vector<int> first(std::vector<int> ids, size_t n) {
  ids.resize(n);
  return ids;
}

SequenceRows decode(Sequences& s, const std::vector<Sequences::Piece>& pieces) {
  SequenceRows rows;
  s.decode(pieces, [&](int sequence, int64_t position, std::span<const float> l) {
    EXPECT_TRUE(rows.emplace(std::pair(sequence, position), std::vector<float>(l.begin(), l.end())).second);
  });
  return rows;
}

class SequencesOf : public ::testing::TestWithParam<const char*> {
 protected:
  const TinyFile file{{.arch = GetParam(), .format = Format::Q4_0}};
  const Model model{file.path(), {.threads = 2}};
};

TEST_P(SequencesOf, EachHasTheBitsThatItHasAloneForEveryUbatchAndMostWanted) {
  const std::vector<std::vector<int>> texts = {prompt(11, 1), prompt(4, 2), prompt(270, 3)};
  for (int ubatch : {512, 64, 5}) {
    for (int most : {32, 1}) {
      Sequences s(model, {.n_ubatch = ubatch}, 3, most);
      const SequenceRows prompts = decode(s, {{2, texts[2]}, {0, texts[0]}, {1, texts[1], Want::none}});
      EXPECT_EQ(prompts.size(), 2u);
      EXPECT_TRUE(same_bits(prompts.at({2, 269}), alone(model, texts[2])));
      EXPECT_TRUE(same_bits(prompts.at({0, 10}), alone(model, texts[0])));
      const std::vector<int> next = {7, 8, 9};
      const std::span<const int> tokens = next;
      const SequenceRows steps =
          decode(s, {{1, tokens.subspan(1, 1)}, {0, tokens.subspan(0, 1)}, {2, tokens.subspan(2, 1)}});
      for (int i = 0; i < 3; ++i) {
        std::vector<int> text = texts[size_t(i)];
        text.push_back(next[size_t(i)]);
        EXPECT_TRUE(same_bits(steps.at({i, int64_t(text.size()) - 1}), alone(model, text)))
            << "sequence " << i << " ubatch " << ubatch;
        EXPECT_EQ(s.length(i), int64_t(text.size()));
      }
    }
  }
}

TEST_P(SequencesOf, AllRowsOfADraftAreThoseOfItsTokensOneByOne) {
  const std::vector<int> text = prompt(20, 4);
  Sequences s(model, {}, 2, 3);
  decode(s, {{1, first(text, 12)}});
  const std::vector<int> other = prompt(6, 5);
  const SequenceRows rows = decode(s, {{0, other}, {1, std::span(text).subspan(12), Want::all}});
  EXPECT_EQ(rows.size(), 9u);
  for (size_t n = 13; n <= 20; ++n)
    EXPECT_TRUE(same_bits(rows.at({1, int64_t(n) - 1}), alone(model, first(text, n)))) << n;
}

TEST_P(SequencesOf, WhatWasTruncatedLeavesNoTrace) {
  const std::vector<int> text = prompt(9, 6), wrong = prompt(290, 7);
  Sequences s(model, {}, 2);
  decode(s, {{0, first(text, 5)}, {1, wrong}});
  decode(s, {{0, wrong}});
  s.truncate(0, 5);
  s.truncate(1, 0);
  EXPECT_EQ(s.length(0), 5);
  const SequenceRows rows = decode(s, {{0, std::span(text).subspan(5)}, {1, text}});
  EXPECT_TRUE(same_bits(rows.at({0, 8}), alone(model, text)));
  EXPECT_TRUE(same_bits(rows.at({1, 8}), alone(model, text)));
}

INSTANTIATE_TEST_SUITE_P(Models, SequencesOf, ::testing::Values("llama", "qwen3", "gemma3"),
                         [](const auto& p) { return std::string(p.param); });

TEST(Sequences, WhatOneCannotTakeChangesNone) {
  const TinyFile file({});
  const Model model(file.path(), {});
  Sequences s(model, {.n_ctx = 8}, 2);
  const std::vector<int> good = prompt(5, 1), outside = {1, testing::TinyModel::kVocab};
  decode(s, {{0, good}});
  EXPECT_EQ(code_of([&] { decode(s, {{1, good}, {0, good}}); }), "context.full");
  EXPECT_EQ(code_of([&] { decode(s, {{1, good}, {0, outside}}); }), "token.range");
  EXPECT_EQ(s.length(0), 5);
  EXPECT_EQ(s.length(1), 0);
}

TEST(Sequences, StopBetweenPassesWhenCancelled) {
  const TinyFile file({});
  const Model model(file.path(), {});
  std::atomic<bool> cancel = true;
  Sequences s(model, {.cancel = &cancel}, 1);
  EXPECT_EQ(code_of([&] { decode(s, {{0, prompt(3, 1)}}); }), "run.cancelled");
  EXPECT_EQ(s.length(0), 0);
}

TEST(Sequences, TimedStepsCountTheRowsOfEveryPassAndNothingWhenOff) {
  const TinyFile file({});
  const Model model(file.path(), {.threads = 2});
  Sequences s(model, {.n_ubatch = 4}, 1);
  std::vector<StepTime> times(s.plan().steps.size());
  s.time_steps(&times);
  decode(s, {{0, prompt(10, 1)}});
  s.time_steps(nullptr);
  decode(s, {{0, prompt(3, 1)}});
  for (size_t i = 0; i < times.size(); ++i) {
    const bool wanted = s.plan().steps[i].wanted;
    EXPECT_EQ(times[i].rows, wanted ? 1 : 10);
    EXPECT_EQ(times[i].calls, wanted ? 1 : 3);
    EXPECT_GT(times[i].seconds, 0);
  }
}

}  // namespace
}  // namespace plumb
