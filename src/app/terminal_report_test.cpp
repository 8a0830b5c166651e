#include "app/terminal_report.h"

#include <gtest/gtest.h>

namespace plumb {
namespace {

TEST(TerminalReport, ContinuesATextUnderItself) {
  EXPECT_EQ(
      fitted("CAUSE        one two three four five six seven eight nine\nSAME         x\n", 13, 46, false),
      "CAUSE        one two three four five six seven\n             eight nine\nSAME         x\n");
}

TEST(TerminalReport, IndentsByTwoWhereThereIsNoRoom) {
  EXPECT_EQ(fitted("GAUGE        one two three four five\n", 13, 24, false),
            "GAUGE        one two\n  three four five\n");
}

TEST(TerminalReport, NoLineIsWiderWhateverItHolds) {
  const std::string report = "REPLAY       " + std::string(200, 'x') + " y\n";
  for (size_t columns : {20u, 40u, 80u}) {
    const std::string text = fitted(report, 13, columns, false);
    for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
      EXPECT_LE(text.find('\n', at) - at, columns);
  }
}

TEST(TerminalReport, ColoursTheVerdictAlone) {
  EXPECT_EQ(fitted("DIVERGES at  x\n", 13, 80, true), "\x1b[1;31mDIVERGES\x1b[0m at  x\n");
  EXPECT_EQ(fitted("             x\n", 13, 80, true), "             x\n");
}

}  // namespace
}  // namespace plumb
