// Numbers between bounds, as alternatives of digits.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/json_schema_parts.h"

namespace plumb::schema {
namespace {

std::string digits(size_t n) { return n == 0 ? "" : n == 1 ? "[0-9]" : fmt::format("[0-9]{{{}}}", n); }

std::string one_of(char low, char high) {
  return low == high ? fmt::format("\"{}\"", low) : fmt::format("[{}-{}]", low, high);
}

std::string alternatives(const std::vector<std::string>& parts) {
  std::string s;
  for (const std::string& p : parts) s += (s.empty() ? "" : " | ") + p;
  return parts.size() == 1 ? s : "(" + s + ")";
}

// Digit strings of one length from `low` to `high`.
std::string between(std::string_view low, std::string_view high) {
  const size_t n = low.size();
  if (n == 0) return "";
  const bool from_zeros = low.find_first_not_of('0') == std::string_view::npos;
  const bool to_nines = high.find_first_not_of('9') == std::string_view::npos;
  if (from_zeros && to_nines) return digits(n);
  if (low[0] == high[0]) return fmt::format("\"{}\" {}", low[0], between(low.substr(1), high.substr(1)));
  const std::string zeros(n - 1, '0'), nines(n - 1, '9');
  std::vector<std::string> parts;
  char first = low[0], last = high[0];
  if (low.substr(1) != zeros)
    parts.push_back(fmt::format("\"{}\" {}", first++, between(low.substr(1), nines)));
  const bool cut = high.substr(1) != nines;
  if (cut) --last;
  if (first <= last) parts.push_back(one_of(first, last) + " " + digits(n - 1));
  if (cut) parts.push_back(fmt::format("\"{}\" {}", high[0], between(zeros, high.substr(1))));
  return alternatives(parts);
}

// Natural numbers of at most 16 digits; high -1: all of these.
std::string natural(int64_t low, int64_t high) {
  if (low == 0 && high < 0) return "(\"0\" | [1-9] [0-9]{0,15})";
  if (high < 0) high = 9'999'999'999'999'999;
  const std::string a = fmt::format("{}", low), b = fmt::format("{}", high);
  std::vector<std::string> parts;
  for (size_t n = a.size(); n <= b.size(); ++n) {
    const std::string from = n == a.size() ? a : "1" + std::string(n - 1, '0');
    const std::string to = n == b.size() ? b : std::string(n, '9');
    parts.push_back(between(from, to));
  }
  return alternatives(parts);
}

struct Bounds {
  std::optional<int64_t> low, high;
  bool open_low = false, open_high = false;
};

// Bounds in whole numbers within those asked for. `real`: a bound itself may be left out, its neighbours not.
Bounds bounds_of(const Json& s, bool real, const std::string& pointer) {
  Bounds b;
  const auto read = [&](const char* key) -> std::optional<double> {
    const Json* v = s.find(key);
    if (!v) return std::nullopt;
    const double x = *v->number();
    if (std::abs(x) > double(kMaxBound)) {
      refuse("schema.limit", below(pointer, key), fmt::format("a bound within +-{}", kMaxBound), dump(*v));
    }
    return x;
  };
  if (const auto x = read("minimum")) b.low = int64_t(std::ceil(*x));
  if (const auto x = read("maximum")) b.high = int64_t(std::floor(*x));
  if (const auto x = read("exclusiveMinimum")) {
    const bool whole = *x == std::floor(*x);
    const int64_t low = int64_t(std::ceil(*x)) + (whole && !real ? 1 : 0);
    if (!b.low || low >= *b.low) {
      b.low = low;
      b.open_low = whole && real;
    }
  }
  if (const auto x = read("exclusiveMaximum")) {
    const bool whole = *x == std::floor(*x);
    const int64_t high = int64_t(std::floor(*x)) - (whole && !real ? 1 : 0);
    if (!b.high || high <= *b.high) {
      b.high = high;
      b.open_high = whole && real;
    }
  }
  return b;
}

constexpr const char* kFraction = "(\".\" [0-9]{1,6})?";
constexpr const char* kSomeFraction = "\".\" [0-9]{0,5} [1-9]";

// Sizes from `low` to `high` (-1: all), written with at most six decimals, of which a double keeps every one.
std::string sizes(int64_t low, bool open_low, int64_t high, bool open_high) {
  std::vector<std::string> parts;
  const bool fine = std::max(low, high) < 1'000'000'000;
  if (low == high) {
    if (!open_low && !open_high) parts.push_back(fmt::format("\"{}\"", low));
    return parts.empty() ? "" : parts[0];
  }
  if (!open_low) parts.push_back(fmt::format("\"{}\" {}", low, fine ? kFraction : ""));
  if (open_low && fine) parts.push_back(fmt::format("\"{}\" {}", low, kSomeFraction));
  const int64_t last = high < 0 ? (fine ? 999'999'999 : -1) : high - 1;
  if (last < 0 || low + 1 <= last) {
    parts.push_back(fmt::format("{} {}", natural(low + 1, last), fine ? kFraction : ""));
  }
  if (high >= 0 && !open_high) parts.push_back(fmt::format("\"{}\"", high));
  return parts.empty() ? "" : alternatives(parts);
}

std::string real_body(const Bounds& b) {
  if (!b.low && !b.high) {
    return "\"-\"? (\"0\" | [1-9] [0-9]{0,15}) (\".\" [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?";
  }
  std::vector<std::string> parts;
  const auto add = [&](const char* sign, const std::string& body) {
    if (!body.empty()) parts.push_back(sign + body);
  };
  const int64_t low = b.low.value_or(INT64_MIN), high = b.high.value_or(INT64_MAX);
  if (low <= 0 && high >= 0) {
    if (high > 0 || (!b.open_high && !b.open_low)) {
      const bool open_zero = low == 0 && b.open_low;
      add("", sizes(0, open_zero, b.high ? high : -1, b.open_high));
    }
    if (low < 0) add("\"-\" ", sizes(0, high == 0 && b.open_high, b.low ? -low : -1, b.open_low));
  } else if (low > 0) {
    add("", sizes(low, b.open_low, b.high ? high : -1, b.open_high));
  } else {
    add("\"-\" ", sizes(-high, b.open_high, b.low ? -low : -1, b.open_low));
  }
  return parts.empty() ? "" : alternatives(parts);
}

}  // namespace

std::string integer_body(std::optional<int64_t> low, std::optional<int64_t> high) {
  if (!low && !high) return "\"-\"? (\"0\" | [1-9] [0-9]{0,15})";
  std::vector<std::string> parts;
  if (!low || *low < 0) {
    const int64_t least = high && *high < 0 ? -*high : 1;
    parts.push_back("\"-\" " + natural(least, low ? -*low : -1));
  }
  if (!high || *high >= 0) parts.push_back(natural(low ? std::max<int64_t>(*low, 0) : 0, high.value_or(-1)));
  return alternatives(parts);
}

std::string number_body(const Json& s, uint8_t kinds, const std::string& pointer) {
  const bool real = (kinds & kReal) != 0;
  if (const Json* m = s.find("multipleOf"); m && (real || *m->number() != 1)) {
    refuse("schema.unsupported", below(pointer, "multipleOf"), "no multipleOf, or 1 for integers", dump(*m));
  }
  const Bounds b = bounds_of(s, real, pointer);
  const bool empty = b.low && b.high && *b.low > *b.high;
  const std::string body = empty ? "" : real ? real_body(b) : integer_body(b.low, b.high);
  if (body.empty()) {
    refuse("schema.unsatisfiable", pointer,
           "bounds with a whole number or a fraction of six digits between them", "none");
  }
  return body;
}

}  // namespace plumb::schema
