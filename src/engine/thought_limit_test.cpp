// How an answer grows beside its stops: thoughts that have become too long are ended.
#include <gtest/gtest.h>

#include "engine/answer.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

TEST(Answer, EndsAThoughtThatHasBecomeTooLong) {
  const testing::TinyFile file{{.vocabulary = true}};
  const Model model{file.path(), {}};
  const auto ids = [&](ThoughtLimit limit) {
    GenerateOptions options{.n_predict = 8, .ignore_eos = true, .thought = limit};
    options.sampler.temperature = 0;
    Answer answer(model.tokenizer(), options, {3});
    std::vector<float> logits(size_t(model.n_vocab()));
    logits[20] = 1;  // what the model would write for ever
    std::vector<int> out;
    while (out.size() < 8) out.push_back(answer.push(logits).id);
    return out;
  };
  const int open = 10, close = 11, word = 20;
  EXPECT_EQ(ids({2, open, close, true}), (std::vector{word, word, close, word, word, word, word, word}));
  EXPECT_EQ(ids({0, open, close, true})[0], close);
  EXPECT_EQ(ids({2, open, close, false}), std::vector<int>(8, word));  // there is no thought
  EXPECT_EQ(ids({1, word, close, false}), (std::vector{word, word, close, word, close, word, close, word}));
}

}  // namespace
}  // namespace plumb
