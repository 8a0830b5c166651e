// How an answer grows beside its stops: thoughts that have become too long are ended, and a grammar's text is
// completed in time.
#include "engine/answer.h"

#include <gtest/gtest.h>

#include "engine/test_support.h"
#include "text/test_vocabulary.h"

namespace plumb {
namespace {

TEST(Answer, EndsAThoughtThatHasBecomeTooLong) {
  const testing::TinyFile file{{.vocabulary = true}};
  const Model model{file.path(), {}};
  const auto ids = [&](ThoughtLimit limit) {
    GenerateOptions options{.n_predict = 8, .ignore_eos = true, .thought = limit};
    options.sampler.temperature = 0;
    Answer answer(model.tokenizer(), options, {3}, 4096);
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

// Answers to random logits, of at most `most` tokens and within a context of n_ctx.
struct Random {
  TestVocabulary tokens = TestVocabulary::bpe("llama-bpe");
  Gguf file = tokens.file();
  Tokenizer tokenizer = Tokenizer::load(file);
  std::shared_ptr<const GrammarVocabulary> vocabulary = std::make_shared<const GrammarVocabulary>(tokenizer);
  std::vector<std::pair<int, double>> bias = {};

  struct Found {
    std::string text;
    Stop stop;
    int tokens;
  };
  Found operator()(const Grammar& grammar, int most, int64_t n_ctx, uint64_t seed) const {
    GenerateOptions options{.n_predict = most, .grammar = GrammarState(grammar, vocabulary)};
    options.sampler.seed = seed, options.sampler.temperature = 1;
    options.sampler.logit_bias = bias;
    Answer answer(tokenizer, options, {3}, n_ctx);
    std::vector<float> logits(size_t(tokenizer.size()));
    Found out{};
    for (uint64_t i = 0;; ++i) {
      for (size_t id = 0; id < logits.size(); ++id) logits[id] = float(6 * counter_uniform(seed, i, id));
      const Answer::Step step = answer.push(logits);
      out.text += step.text, out.tokens = answer.count();
      const bool full = answer.count() > n_ctx - 1;
      if (!step.stop && !full) continue;
      out.stop = step.stop.value_or(Stop::context_full);
      out.text += answer.finish();
      return out;
    }
  }
  bool complete(const Grammar& grammar, const std::string& text) const {
    GrammarState state(grammar, vocabulary);
    return state.accept_text(text) && state.can_end();
  }
};

TEST(Answer, CompletesAGrammarsTextInTimeWhereverThatIsPossible) {
  const Random random;
  for (const char* source :
       {R"g(root ::= "[" ([a-z]+ ("," [a-z]+)*)? "]")g", R"g(root ::= "(" root ")" root | "x")g",
        R"g(root ::= ("ab" | "abc" | [^a]{2,9}) (root | "!"))g", R"g(root ::= [a-z]{3,7} "-" [0-9]{4})g"}) {
    const Grammar grammar = Grammar::parse(source);
    const int least = GrammarState(grammar, random.vocabulary).to_end();
    for (int most = std::max(least, 1); most < 24; ++most) {
      for (uint64_t seed = 0; seed < 8; ++seed) {
        const auto found = random(grammar, most, 4096, seed);
        EXPECT_TRUE(random.complete(grammar, found.text)) << source << ", " << most << ": " << found.text;
        EXPECT_LE(found.tokens, most);
      }
    }
  }
}

TEST(Answer, SaysThatItsTextWasHurried) {
  Random random;
  const Grammar endless = Grammar::parse(R"g(root ::= "[" "a"* "]")g");
  for (int id = 0; id < random.tokenizer.size(); ++id) {
    if (random.tokenizer.piece(id) == "a") random.bias = {{id, 100}};
  }
  const auto cut = random(endless, 12, 4096, 1), whole = random(endless, -1, 12, 1);
  EXPECT_EQ(cut.text, "[" + std::string(10, 'a') + "]");
  EXPECT_EQ(cut.stop, Stop::limit);
  EXPECT_EQ(whole.text, cut.text);  // the context is the limit: the prompt's token, and the last is not read
  EXPECT_EQ(whole.stop, Stop::context_full);
  const Grammar word = Grammar::parse(R"g(root ::= "a" "b" "c"?)g");
  EXPECT_EQ(random(word, 40, 4096, 1).stop, Stop::end_of_text);
}

}  // namespace
}  // namespace plumb
