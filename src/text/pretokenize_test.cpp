// The cutting of texts into words: its short cut must not change a word.
#include "text/pretokenize.h"

#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"

namespace plumb {
namespace {

std::vector<std::string> words_of(const Cutter& cutter, const std::string& text) {
  std::vector<std::string> words;
  cutter.cut(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

TEST(Cutter, MatchesAloneEqualThoseOfTheSearchInEveryPreTokenizer) {
  constexpr uint32_t kCharacters[] = {'a',    'B',    '1',    '7',     '0',   ' ',    ' ',    '\n',
                                      '\r',   '\t',   '\'',   's',     '-',   '.',    '/',    '$',
                                      0xE9,   0x301,  0xB2,   0x2167,  0x663, 0x3000, 0x65E5, 0x3042,
                                      0xFF11, 0xFF01, 0x2028, 0x1F600, 0xFFFD};
  std::mt19937 random(11);
  int with = 0;
  for (const PreTokenizer& rules : all_pre_tokenizers()) {
    std::vector<PreTokenizerStep> steps(rules.steps.begin(), rules.steps.end());
    for (PreTokenizerStep& step : steps) {
      with += step.alone != PreTokenizerStep::Alone::nothing;
      step.alone = PreTokenizerStep::Alone::nothing;
    }
    PreTokenizer plain = rules;
    plain.steps = steps;
    const Cutter quick(rules), slow(plain);
    for (int round = 0; round < 200; ++round) {
      std::string text;
      for (size_t n = 1 + random() % 20; n > 0; --n)
        append_utf8(text, kCharacters[random() % std::size(kCharacters)]);
      ASSERT_EQ(words_of(quick, text), words_of(slow, text)) << rules.name;
    }
  }
  EXPECT_GT(with, 20);
}

}  // namespace
}  // namespace plumb
