#include "base/terminal_filter.h"

#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"

namespace plumb {
namespace {

// No ESC, no other control character but newline and tab, no C1 code point, no mark that reorders.
bool harmless(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.state != Utf8Step::State::valid) return false;
    const uint32_t c = step.code;
    if ((c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0)) return false;
    if ((c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069)) return false;
    at += size_t(step.length);
  }
  return true;
}

TEST(TerminalFilter, PlainTextOfAnyScriptStaysAsItIs) {
  const std::string text = "a\tb\nGr\xC3\xBC\xC3\x9F \xE6\x97\xA5\xE6\x9C\xAC \xF0\x9F\x98\x80 \\e \"x\"";
  EXPECT_EQ(terminal_text(text), text);
}

TEST(TerminalFilter, EscapeSequencesBecomeVisible) {
  EXPECT_EQ(terminal_text("\x1b[31mred\x1b[0m"), "\\e[31mred\\e[0m");
  EXPECT_EQ(terminal_text("\x1b]52;c;cm0gLXJm\x07"), "\\e]52;c;cm0gLXJm\\x07");
  EXPECT_EQ(terminal_text("\x1bP$qm\x1b\\"), "\\eP$qm\\e\\");
  EXPECT_EQ(terminal_text("\xC2\x9B"
                          "6n"),
            "\\x9b6n");  // C1 as a character
  EXPECT_EQ(terminal_text("\x9B"
                          "6n"),
            "\xEF\xBF\xBD"
            "6n");  // and as a byte
  EXPECT_EQ(terminal_text("\x7f\b"), "\\x7f\\x08");
  EXPECT_EQ(terminal_text(std::string_view("\0", 1)), "\\x00");
}

TEST(TerminalFilter, MarksThatReorderBecomeVisible) {
  EXPECT_EQ(terminal_text("\xE2\x80\xAE"
                          "exe.txt"),
            "\\u{202e}exe.txt");
  EXPECT_EQ(terminal_text("\xE2\x81\xA6"), "\\u{2066}");
  EXPECT_EQ(terminal_text("\xE2\x80\xA9"), "\xE2\x80\xA9");
}

TEST(TerminalFilter, ACarriageReturnStaysOnlyAsPartOfANewline) {
  EXPECT_EQ(terminal_text("a\r\nb"), "a\nb");
  EXPECT_EQ(terminal_text("pass\rfail"), "pass\\rfail");
  EXPECT_EQ(terminal_text("a\r"), "a\\r");
  EXPECT_EQ(terminal_text("a\r\r\n"), "a\\r\n");
}

TEST(TerminalFilter, WhatIsCutOffInsideACharacterIsShownAsReplaced) {
  EXPECT_EQ(terminal_text("a\xE6\x97"), "a\xEF\xBF\xBD");
}

TEST(TerminalFilter, RandomBytesAreHarmlessAndTheSameHoweverTheyAreCut) {
  std::mt19937 random(1);
  const std::string alphabet("\x1b[]P\\\x07\xC2\x9B\xE2\x80\xAE\x81\xA6 a;5\r\n\t\x7f\xF0\x9F\0", 25);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t n = random() % 24; n > 0; --n)
      text += random() % 4 == 0 ? char(random()) : alphabet[random() % alphabet.size()];
    const std::string whole = terminal_text(text);
    ASSERT_TRUE(harmless(whole)) << round;
    TerminalFilter filter;
    std::string pieces;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + random() % 3;
      pieces += filter.push(std::string_view(text).substr(at, n));
      ASSERT_TRUE(harmless(pieces)) << round;
      at += n;
    }
    ASSERT_EQ(pieces + filter.finish(), whole) << round;
  }
}

}  // namespace
}  // namespace plumb
