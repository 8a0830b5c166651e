#include "text/grammar.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "text/grammar_network.h"
#include "text/test_vocabulary.h"

namespace plumb {
namespace {

struct Setting {
  Setting()
      : vocabulary(TestVocabulary::bpe("llama-bpe")),
        file(vocabulary.file()),
        tokenizer(Tokenizer::load(file)) {
    tokens = std::make_shared<const GrammarVocabulary>(tokenizer);
  }
  TestVocabulary vocabulary;
  Gguf file;
  Tokenizer tokenizer;
  std::shared_ptr<const GrammarVocabulary> tokens;
};

const Setting& setting() {
  static const Setting s;
  return s;
}

GrammarState state(std::string_view grammar) {
  return {Grammar::parse(grammar, &setting().tokenizer), setting().tokens};
}

bool fits(std::string_view grammar, std::string_view text) {
  GrammarState s = state(grammar);
  return s.accept_text(text) && s.can_end();
}

Error refusal(std::string_view grammar) {
  try {
    Grammar::parse(grammar);
  } catch (const Error& e) {
    return e;
  }
  return Error({.code = "accepted"});
}

TEST(Grammar, RulesAlternativesGroupsAndRepetitionsMeanWhatTheirNamesSay) {
  const std::string_view g = R"g(# a comment
root ::= "a" (b | "c")* tail{2,3} # another
b ::= "b"
tail ::= [0-9] "!"? |
  "x"
)g";
  for (const char* text : {"a11", "abcb1!2", "axx", "a1x2", "abxx9!"}) EXPECT_TRUE(fits(g, text)) << text;
  for (const char* text : {"", "a", "a1", "a1111", "b11", "abd11"}) EXPECT_FALSE(fits(g, text)) << text;
}

// The fewest bytes after which the text is complete, by trying all.
int shortest(const GrammarState& from) {
  std::vector<GrammarState> now = {from};
  for (int length = 0; length < 12; ++length) {
    std::vector<GrammarState> next;
    for (const GrammarState& s : now) {
      if (s.can_end()) return length;
      for (char c : std::string_view("abcxyz12()")) {
        GrammarState to = s;
        if (to.accept_text(std::string_view(&c, 1))) next.push_back(to);
      }
    }
    now = std::move(next);
  }
  return -1;
}

TEST(Grammar, DistancesToTheEndAreThoseOfTheShortestTexts) {
  for (const char* g : {R"g(root ::= "(" root ")" root | "x" | "")g", R"g(root ::= "(" root ")" | "xyz")g",
                        R"g(root ::= a b | a "12" c
a ::= "x" a "y" | "z"
b ::= "abc" b | c c
c ::= [a-c]{2,4})g",
                        R"g(root ::= ("a"? "b"?)* "1" e e "2"
e ::= "x"?)g",
                        R"g(root ::= "a"{3,} | "b" ("c" | "ab"){2})g"}) {
    GrammarState s = state(g);
    for (const char* text : {"", "(", "x", "(x", "xz", "z", "zab", "z12", "a", "ba", "aa1", "b"}) {
      GrammarState at = s;
      if (!at.accept_text(text)) continue;
      EXPECT_EQ(at.to_end(), shortest(at)) << g << " behind " << text;
    }
  }
}

TEST(Grammar, RecursionCountsParentheses) {
  const std::string_view g = R"g(root ::= "(" root ")" root | "")g";
  EXPECT_TRUE(fits(g, ""));
  EXPECT_TRUE(fits(g, "(()())()"));
  EXPECT_TRUE(fits(g, std::string(500, '(') + std::string(500, ')')));
  EXPECT_FALSE(fits(g, "(()"));
  EXPECT_FALSE(fits(g, "())"));
}

TEST(Grammar, AnAmbiguousGrammarDoesNotMultiplyItsStacks) {
  const std::string_view g = R"g(root ::= s
s ::= "a" s "b" | "a" s "c" | "a" s d | "x"
d ::= "b" | "c")g";
  EXPECT_TRUE(fits(g, std::string(300, 'a') + "x" + std::string(300, 'b')));
  EXPECT_FALSE(fits(g, std::string(300, 'a') + "x" + std::string(301, 'b')));
}

TEST(Grammar, RulesThatMayBeEmptyAreSteppedOver) {
  const std::string_view g = R"g(root ::= e f "x" e e "y" e
e ::= f f | f
f ::= "z"? )g";
  EXPECT_TRUE(fits(g, "xy"));
  EXPECT_TRUE(fits(g, "zzzxzyzz"));
  EXPECT_FALSE(fits(g, "zzzzxy"));
  EXPECT_TRUE(fits("root ::= ((\"a\"?)*)*", "aaa"));
}

TEST(Grammar, ClassesAreOfCharactersAndTextOfBytes) {
  const std::string_view g = "root ::= [\\u00e0-\\u00ef]+ [^a-z\\n]\n";
  EXPECT_TRUE(fits(g, "\u00e0\u00ef1"));
  EXPECT_TRUE(fits(g, "\u00e9\U0001F600"));
  EXPECT_FALSE(fits(g, "\u00df1"));
  EXPECT_FALSE(fits(g, "\u00e9a"));
  EXPECT_FALSE(fits(g, "\u00e9\xED\xA0\x80"));  // a surrogate is no character
  EXPECT_FALSE(fits(g, "\u00e9\xC0\xAF"));      // overlong
  EXPECT_TRUE(fits(R"g(root ::= "\"" [\]\\^-] [-a] "\x41\u0042\U00000043" .)g", "\"]-ABC."));
}

TEST(Grammar, EveryCharacterFallsInExactlyOneOfAClassAndItsComplement) {
  const std::string_view in = "root ::= [\\x20-\\u0905\\u2000-\\uFFF0\\U0001F000-\\U0010ABCD]";
  const std::string_view out = "root ::= [^\\x20-\\u0905\\u2000-\\uFFF0\\U0001F000-\\U0010ABCD]";
  GrammarState a = state(in), b = state(out);
  for (uint32_t c = 0; c < 0x110000; c += c < 0x3000 ? 1 : 97) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, c);
    const bool expected =
        (c >= 0x20 && c <= 0x905) || (c >= 0x2000 && c <= 0xFFF0) || (c >= 0x1F000 && c <= 0x10ABCD);
    ASSERT_EQ(GrammarState(a).accept_text(text), expected) << c;
    ASSERT_EQ(GrammarState(b).accept_text(text), !expected) << c;
  }
}

TEST(Grammar, TokensThatEndInsideACharacterAreAllowedWhereTheCharacterMayFollow) {
  GrammarState s = state("root ::= \"\\U0001F600\" \"a\"");
  int half = -1;  // 0xF0 0x9F
  for (int id = 0; id < setting().tokenizer.size(); ++id) {
    if (setting().tokenizer.piece(id) == "\xF0\x9F") half = id;
  }
  ASSERT_GE(half, 0);
  EXPECT_TRUE(is_allowed(s.allowed(), half));
  EXPECT_TRUE(s.accept(half));
  EXPECT_FALSE(s.can_end());
  EXPECT_TRUE(
      s.accept_text("\x98\x80"
                    "a"));
  EXPECT_TRUE(s.can_end());
}

// The mask is computed on two ways, by state and by stack; the slow and obvious way is to try every token.
TEST(Grammar, AllowsExactlyTheTokensThatAcceptTakes) {
  const char* grammars[] = {
      R"g(root ::= "he" [a-l]* "\"" | item{2,5} | "(" root ")"
item ::= ("a" | "aa" | " ") ("h" root "e")?)g",
      R"g(root ::= str ("," str)*
str ::= "h" c{0,4} "o"
c ::= [^ho\x00-\x1F] | "l" )g",
      "root ::= .* \"hello\" .?", "root ::= (<[270]> | !<[5]> \"7\")* "};
  for (const char* g : grammars) {
    GrammarState s = state(g);
    uint64_t seed = 7;
    for (int step = 0; step < 40 && !s.ended(); ++step) {
      const auto bits = s.allowed();
      std::vector<int> choices;
      for (int id = 0; id < setting().tokenizer.size(); ++id) {
        GrammarState copy = s;
        ASSERT_EQ(copy.accept(id), is_allowed(bits, id)) << g << " step " << step << " token " << id;
        if (is_allowed(bits, id)) choices.push_back(id);
      }
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      ASSERT_TRUE(s.accept(choices[(seed >> 33) % choices.size()]));
    }
  }
}

TEST(Grammar, EndOfGenerationIsAllowedExactlyWhereTheTextIsComplete) {
  GrammarState s = state("root ::= \"a\" \"b\"?");
  const int end = setting().tokens->ends().front();
  EXPECT_FALSE(is_allowed(s.allowed(), end));
  EXPECT_FALSE(s.accept(end));
  EXPECT_TRUE(s.accept_text("a"));
  EXPECT_TRUE(is_allowed(s.allowed(), end));
  GrammarState copy = s;
  EXPECT_TRUE(copy.accept(end));
  EXPECT_TRUE(copy.ended());
  EXPECT_THROW(copy.allowed(), Error);
  EXPECT_TRUE(s.accept_text("b"));
  std::vector<float> logits(size_t(setting().tokenizer.size()), 1.0f);
  s.mask(logits);
  for (int id = 0; id < int(logits.size()); ++id)
    EXPECT_EQ(logits[size_t(id)] == 1.0f, setting().tokens->is_end(id));
}

TEST(Grammar, ErrorsHaveACodeALineAndAColumn) {
  const struct {
    const char *grammar, *code, *place;
  } cases[] = {
      {"root ::= \"a", "grammar.syntax", "line 1, column 10"},
      {"root ::= [a", "grammar.syntax", "line 1, column 10"},
      {"root ::= []", "grammar.syntax", "line 1, column 10"},
      {"root ::= [z-a]", "grammar.syntax", "line 1, column 13"},
      {"root ::= (\"a\"\n", "grammar.syntax", "line 2, column 1"},
      {"root ::= \"\\q\"", "grammar.syntax", "line 1, column 11"},
      {"root ::= \"a\"{3,2}", "grammar.syntax", "line 1, column 13"},
      {"root ::= \"a\"{x}", "grammar.syntax", "line 1, column 14"},
      {"root ::= \"a\" ) ", "grammar.syntax", "line 1, column 14"},
      {"root = \"a\"", "grammar.syntax", "line 1, column 6"},
      {"root ::= \"\\uD800\"", "grammar.syntax", "line 1, column 11"},
      {"root ::= <nothing>", "grammar.syntax", "line 1, column 10"},
      {"root ::=\n  a | b\na ::= \"x\"\n", "grammar.rule", "line 2, column 7"},
      {"a ::= \"x\"\n", "grammar.rule", "line 2, column 1"},
      {"root ::= \"a\"\nroot ::= \"b\"\n", "grammar.rule", "line 2, column 1"},
      {"root ::= a\na ::= \"x\"? b\nb ::= a \"y\" | \"z\"", "grammar.left_recursion", "line 2, column 1"},
      {"root ::= \"a\" root", "grammar.endless", "line 1, column 1"},
  };
  for (const auto& c : cases) {
    const Error e = refusal(c.grammar);
    EXPECT_EQ(e.code(), c.code) << c.grammar;
    EXPECT_NE(e.where().key.find(c.place), std::string::npos) << c.grammar << ": " << e.what();
  }
}

TEST(Grammar, LimitsAreKeptAndReached) {
  const auto nested = [](int n) {
    return "root ::= " + std::string(size_t(n), '(') + "\"a\"" + std::string(size_t(n), ')');
  };
  EXPECT_EQ(refusal(nested(grammar::kMaxGrammarNesting)).code(), "accepted");
  EXPECT_EQ(refusal(nested(grammar::kMaxGrammarNesting + 1)).code(), "grammar.limit");
  EXPECT_EQ(refusal(nested(60'000)).code(), "grammar.limit");
  EXPECT_EQ(refusal("root ::= \"a\"{2000}").code(), "accepted");
  EXPECT_EQ(refusal("root ::= \"a\"{2001}").code(), "grammar.limit");
  EXPECT_EQ(refusal("root ::= \"a\"{99999999999999999999}").code(), "grammar.limit");
  EXPECT_EQ(refusal("root ::= ((\"\"{2000}){2000}){2000}").code(), "grammar.limit");
  EXPECT_EQ(refusal("root ::= ((.{2000}){2000}){2000}").code(), "grammar.limit");
  std::string rules = "root ::= a0";
  for (int i = 0; i < grammar::kMaxGrammarRules - 1; ++i) rules += "\na" + std::to_string(i) + "::=\"\"";
  EXPECT_EQ(refusal(rules + std::string(size_t(grammar::kMaxGrammarBytes), ' ')).code(), "grammar.limit");
}

TEST(Grammar, WhatWasLearntIsForgottenWithoutAChange) {
  GrammarState s = state("root ::= (\"(\" root \")\" [a-z] | \"x\")+");
  for (int i = 0; i < 30'000; ++i) ASSERT_TRUE(s.accept_text("("));
  ASSERT_TRUE(s.accept_text("x"));
  for (int i = 0; i < 30'000; ++i) ASSERT_TRUE(s.accept_text(")q")) << i;
  EXPECT_TRUE(s.can_end());
  EXPECT_FALSE(s.accept_text(")"));
}

}  // namespace
}  // namespace plumb
