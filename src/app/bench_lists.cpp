#include "app/bench_lists.h"

#include <fmt/format.h>

#include <charconv>

#include "base/error.h"

namespace plumb {
namespace {

constexpr size_t kMost = 10000;

[[noreturn]] void refuse(const std::string& expected, const std::string& found, const char* key) {
  throw Error(
      {.code = "usage.value", .expected = expected, .found = printable(found, 40), .where = {.key = key}});
}

// Reads a number from the front of the text; false if there is none.
bool take(std::string_view& text, int& number) {
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return false;
  text.remove_prefix(size_t(rest - text.data()));
  return true;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

// first, first-last, first-last+step or first-last*factor; false if it is none of them.
bool expand(std::string_view text, std::vector<int>& out) {
  int first = 0, last = 0, step = 1;
  if (!take(text, first)) return false;
  bool multiply = false;
  last = first;
  if (take(text, '-')) {
    if (!take(text, last)) return false;
    multiply = !text.empty() && text.front() == '*';
    if ((take(text, '*') || take(text, '+')) && !take(text, step)) return false;
  }
  if (!text.empty() || step < 1 || (multiply && (step < 2 || first < 1))) return false;
  for (int64_t n = first; n <= last && out.size() <= kMost; n = multiply ? n * step : n + step)
    out.push_back(int(n));
  return true;
}

}  // namespace

std::vector<std::string> parse_words(const std::vector<std::string>& texts) {
  std::vector<std::string> words;
  for (const std::string& text : texts) {
    for (size_t start = 0; start <= text.size();) {
      const size_t end = std::min(text.find(',', start), text.size());
      words.push_back(text.substr(start, end - start));
      start = end + 1;
    }
  }
  return words;
}

std::vector<int> parse_counts(const std::vector<std::string>& texts, const char* key, int least, int most) {
  const std::string expected =
      fmt::format("at most {} numbers from {} to {}, as 1,2 or 1-8 or 1-8+2 or 1-8*2", kMost, least, most);
  std::vector<int> counts;
  for (const std::string& word : parse_words(texts)) {
    const size_t before = counts.size();
    if (!expand(word, counts) || counts.size() == before || counts.size() > kMost)
      refuse(expected, word, key);
    for (size_t i = before; i < counts.size(); ++i) {
      if (counts[i] < least || counts[i] > most) refuse(expected, word, key);
    }
  }
  return counts;
}

std::pair<int, int> parse_pair(const std::string& text, const char* key) {
  const std::vector<std::string> words = parse_words({text});
  const std::string expected = "two numbers, as 512,128";
  if (words.size() != 2) refuse(expected, text, key);
  const std::vector<int> pair = parse_counts({text}, key, 0, 1 << 24);
  if (pair.size() != 2) refuse(expected, text, key);
  return {pair[0], pair[1]};
}

}  // namespace plumb
