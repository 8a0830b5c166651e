// Lists of numbers as llama-bench reads them.
#include "app/bench_lists.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace plumb {
namespace {

using Counts = std::vector<int>;

Counts counts(const std::vector<std::string>& texts) { return parse_counts(texts, "--n-prompt", 0, 1000); }

std::string code_of(const std::vector<std::string>& texts) {
  try {
    counts(texts);
  } catch (const Error& e) {
    return e.code();
  }
  return "nothing thrown";
}

TEST(BenchLists, ReadCommasRangesStepsAndFactors) {
  EXPECT_EQ(counts({"512"}), Counts({512}));
  EXPECT_EQ(counts({"1,2", "8"}), Counts({1, 2, 8}));
  EXPECT_EQ(counts({"1-4"}), Counts({1, 2, 3, 4}));
  EXPECT_EQ(counts({"10-31+10,5"}), Counts({10, 20, 30, 5}));
  EXPECT_EQ(counts({"1-16*2"}), Counts({1, 2, 4, 8, 16}));
  EXPECT_EQ(parse_pair("512,128", "-pg"), std::pair(512, 128));
  EXPECT_EQ(parse_words({"a,b", "c"}), std::vector<std::string>({"a", "b", "c"}));
}

TEST(BenchLists, RefuseWhatIsNoNumberOrOutsideTheRange) {
  for (const char* bad : {"", "x", "1,", ",1", "-1", "1001", "1-", "1-2-3", "4-1", "1-9*1", "0-9*2", "1-9+0",
                          "1 ", "99999999999", "0-1000*0"}) {
    EXPECT_EQ(code_of({bad}), "usage.value") << bad;
  }
  EXPECT_EQ(code_of({"1-1000", "1-1000", "1-1000", "1-1000", "1-1000", "1-1000", "1-1000", "1-1000", "1-1000",
                     "1-1000", "1-1000"}),
            "usage.value");
  for (const char* bad : {"512", "1,2,3", "a,b", "1-2,5"}) {
    EXPECT_THROW(parse_pair(bad, "-pg"), Error) << bad;
  }
}

}  // namespace
}  // namespace plumb
