#include "chat/input.h"

#include <gtest/gtest.h>

#include <vector>

namespace plumb {
namespace {

// The message, and how many of the lines it took; 0 where it is not complete.
std::pair<std::string, size_t> read(const std::vector<std::string>& lines, bool multiline = false) {
  InputLines input(multiline);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (input.push(lines[i])) return {input.text(), i + 1};
  }
  return {input.text(), 0};
}

TEST(InputLines, ALineIsAMessage) {
  EXPECT_EQ(read({"hello", "x"}), std::pair(std::string("hello"), size_t(1)));
}

TEST(InputLines, ABackslashAtTheEndContinuesTheLine) {
  EXPECT_EQ(read({"one\\", "two\\", "three"}), std::pair(std::string("one\ntwo\nthree"), size_t(3)));
  EXPECT_EQ(read({"one\\"}), std::pair(std::string("one"), size_t(0)));
}

TEST(InputLines, ThreeQuotesOpenAndCloseABlock) {
  EXPECT_EQ(read({"\"\"\"", "a", "", "/exit\\", "\"\"\""}),
            std::pair(std::string("a\n\n/exit\\"), size_t(5)));
  EXPECT_EQ(read({"\"\"\"a", "b\"\"\""}), std::pair(std::string("a\nb"), size_t(2)));
  EXPECT_EQ(read({"\"\"\"a\"\"\""}), std::pair(std::string("a"), size_t(1)));
  EXPECT_EQ(read({"\"\"\"", "\"\"\""}), std::pair(std::string(""), size_t(2)));
  EXPECT_EQ(read({"\"\"\"", "a"}), std::pair(std::string("a"), size_t(0)));
}

TEST(InputLines, OnlyABlockIsLiteral) {
  InputLines line, block;
  line.push("/exit");
  block.push("\"\"\"/exit\"\"\"");
  EXPECT_FALSE(line.literal());
  EXPECT_TRUE(block.literal());
}

TEST(InputLines, WithMultilineOnlyTheEndOfTheInputEndsAMessage) {
  EXPECT_EQ(read({"a", "", "b"}, true), std::pair(std::string("a\n\nb"), size_t(0)));
}

}  // namespace
}  // namespace plumb
