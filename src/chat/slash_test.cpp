#include "chat/slash.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace plumb {
namespace {

std::string slash_refusal(std::string_view line) {
  try {
    parse_slash(line);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Slash, EveryCommandIsKnownByItsName) {
  for (const SlashCommand& c : slash_commands()) {
    std::string line(c.name);
    if (c.least > 0) line += " some file.txt";
    const auto parsed = parse_slash(line);
    ASSERT_TRUE(parsed) << line;
    EXPECT_EQ(parsed->id, c.id) << line;
    EXPECT_EQ(parsed->argument, c.least > 0 ? "some file.txt" : "") << line;
  }
}

TEST(Slash, AMessageIsNoCommand) {
  EXPECT_FALSE(parse_slash("hello /exit"));
  EXPECT_FALSE(parse_slash(""));
  EXPECT_FALSE(parse_slash("//exit"));
  EXPECT_EQ(message_of("//exit"), "/exit");
  EXPECT_EQ(message_of("  //exit"), "  /exit");
  EXPECT_EQ(message_of("a // b"), "a // b");
}

TEST(Slash, BlanksAroundCommandAndArgumentDoNotCount) {
  EXPECT_EQ(parse_slash("  /system   be  brief \t")->argument, "be  brief");
  EXPECT_EQ(parse_slash("/exit  ")->id, SlashId::exit);
}

TEST(Slash, AnUnknownCommandIsNamedWithTheLikeliestOne) {
  const std::string text = slash_refusal("/sav a.json");
  EXPECT_NE(text.find("/sav"), std::string::npos) << text;
  EXPECT_NE(text.find("did you mean /save?"), std::string::npos) << text;
  EXPECT_NE(slash_refusal("/xyz").find("/help lists them"), std::string::npos);
  EXPECT_EQ(slash_refusal("/\x1b[31m").find('\x1b'), std::string::npos);
}

TEST(Slash, ArgumentsThatAreMissingOrTooMuchAreRefused) {
  EXPECT_NE(slash_refusal("/save"), "");
  EXPECT_NE(slash_refusal("/exit now"), "");
  EXPECT_NE(slash_refusal("/backend metal"), "");
  EXPECT_NE(slash_refusal("/show everything"), "");
  EXPECT_NE(slash_refusal("/config load"), "");
  EXPECT_NE(slash_refusal("/set temperature"), "");
  EXPECT_EQ(slash_refusal("/set temperature 0.5"), "");
}

TEST(Slash, AnyLineIsACommandAMessageOrAnError) {
  std::mt19937 random(3);
  const std::string alphabet = "/hesavlo xi \t\x1b\xff-";
  for (int round = 0; round < 20000; ++round) {
    std::string line = "/";
    for (size_t n = random() % 12; n > 0; --n) line += alphabet[random() % alphabet.size()];
    try {
      parse_slash(line);
    } catch (const Error& e) {
      ASSERT_EQ(e.code().substr(0, 6), "usage.");
    }
  }
}

}  // namespace
}  // namespace plumb
