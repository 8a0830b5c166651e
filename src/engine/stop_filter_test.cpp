// Stop strings: for any split of a text into pieces, what is shown is the text before the first stop string
// to be complete.
#include <gtest/gtest.h>

#include <random>

#include "engine/generate.h"

namespace plumb {
namespace {

// The text before the stop string that ends first; of those that end together, before the one that begins
// first.
std::string naive(const std::string& text, const std::vector<std::string>& stops, bool* stopped) {
  for (size_t end = 0; end <= text.size(); ++end) {
    size_t first = std::string::npos;
    for (const std::string& s : stops) {
      if (!s.empty() && s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0)
        first = std::min(first, end - s.size());
    }
    if (first == std::string::npos) continue;
    *stopped = true;
    return text.substr(0, first);
  }
  *stopped = false;
  return text;
}

TEST(StopFilter, ShowsTheTextBeforeTheFirstStopStringForAnySplit) {
  std::mt19937_64 r(1);
  const auto word = [&](size_t n) {
    std::string s;
    while (s.size() < n) s += "ab\n"[r() % 3];
    return s;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = r() % 4; n > 0; --n) stops.push_back(word(r() % 5));
    const std::string text = word(r() % 30);
    StopFilter filter(stops);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const size_t n = 1 + r() % (r() % 2 ? 2 : 12);
      shown += filter.push(std::string_view(text).substr(at, n));
      at += n;
    }
    shown += filter.finish();
    bool stopped = false;
    const std::string expected = naive(text, stops, &stopped);
    ASSERT_EQ(shown, expected) << ::testing::PrintToString(stops) << " in " << ::testing::PrintToString(text);
    ASSERT_EQ(filter.stopped(), stopped);
  }
}

TEST(StopFilter, HoldsBackNoMoreThanMayBecomeAStopString) {
  StopFilter filter({"<end>"});
  EXPECT_EQ(filter.push("one <"), "one ");
  EXPECT_EQ(filter.push("en"), "");
  EXPECT_EQ(filter.push("t"), "<ent");
  EXPECT_EQ(filter.push("<end> rest"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.push("more"), "");
}

}  // namespace
}  // namespace plumb
