#include "base/error.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(Error, SaysPlaceExpectedFoundCodeAndRemedyInOneSentence) {
  const Error e({.code = "model.shape",
                 .expected = "[4864, 896]",
                 .found = "[896, 4864]",
                 .where = {.file = "m.gguf",
                           .offset = 81920,
                           .tensor = "blk.1.ffn_up.weight",
                           .line = "models/x.cpp:27"},
                 .remedy = "convert it again"});
  EXPECT_STREQ(e.what(),
               "m.gguf, tensor blk.1.ffn_up.weight, byte 81920: expected [4864, 896], found [896, 4864] "
               "(models/x.cpp:27) [model.shape]; convert it again");
}

TEST(Error, LeavesOutWhatIsUnknown) {
  EXPECT_STREQ(Error({.code = "a.b"}).what(), " [a.b]");
  EXPECT_STREQ(Error({.code = "a.b", .found = "x"}).what(), "x [a.b]");
  EXPECT_STREQ(Error({.code = "a.b", .expected = "x", .where = {.offset = 0}}).what(),
               "byte 0: expected x [a.b]");
}

TEST(Error, KeepsItsPartsApart) {
  const Error e({.code = "a.b", .expected = "x", .found = "y", .where = {.key = "k"}, .remedy = "r"});
  EXPECT_EQ(e.code(), "a.b");
  EXPECT_EQ(e.expected(), "x");
  EXPECT_EQ(e.found(), "y");
  EXPECT_EQ(e.remedy(), "r");
  EXPECT_EQ(e.where().key, "k");
}

TEST(Error, ShowsControlBytesOfForeignNamesEscaped) {
  const Error e(
      {.code = "a.b", .found = "y", .where = {.key = "k\x1b[2J", .tensor = std::string(1000, 't')}});
  EXPECT_EQ(std::string(e.what()).find('\x1b'), std::string::npos);
  EXPECT_LT(std::string(e.what()).size(), 200u);
}

TEST(Printable, EscapesEveryByteOutsidePrintableAsciiAndCutsAtTheLimit) {
  EXPECT_EQ(printable("plain ~"), "plain ~");
  EXPECT_EQ(printable(std::string_view("\0\n\x7f\x80\xff", 5)), "\\x00\\x0a\\x7f\\x80\\xff");
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdef", 5), "abcde...");
  EXPECT_EQ(printable(""), "");
}

TEST(CheckDeathTest, AFailedCheckNamesItselfAndAborts) {
  EXPECT_DEATH(PLUMB_CHECK(1 + 1 == 3), "1 \\+ 1 == 3 does not hold");
}

}  // namespace
}  // namespace plumb
