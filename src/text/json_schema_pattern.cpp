// Regular expressions of schemas (ECMA-262 without groups that capture, look around or refer back) and
// formats, as bodies of rules for what stands between the quotes of a JSON string. The expression is never
// matched: it becomes a grammar, so none is slow.
#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"
#include "text/json_schema.h"
#include "text/json_schema_parts.h"

namespace plumb::schema {
namespace {

using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;

constexpr int kMaxGroups = 64;
constexpr const char* kAnything = "([^\"\\\\\\x00-\\x1F] | \"\\\\\" [\"\\\\nrt])*";

const Ranges kDigits = {{'0', '9'}};
const Ranges kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Ranges kBlank = {{9, 13}, {' ', ' '}};
const Ranges kEveryBlank = {{9, 13},          {' ', ' '},       {0x1C, 0x1F},     {0x85, 0x85},
                            {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029},
                            {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const Ranges kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

// All characters but these.
Ranges complement(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Ranges out;
  uint32_t next = 0;
  for (const auto& [low, high] : ranges) {
    if (low > next) out.push_back({next, low - 1});
    next = std::max(next, high + 1);
  }
  if (next <= 0x10FFFF) out.push_back({next, 0x10FFFF});
  return out;
}

// The characters as JSON spells them in a string. Control characters other than these three are left out.
std::string spelled(const Ranges& ranges) {
  std::string plain;
  bool quote = false, backslash = false, controls[3] = {};
  const auto add = [&](uint32_t low, uint32_t high) {
    if (low <= high)
      plain += low == high ? fmt::format("\\U{:08X}", low) : fmt::format("\\U{:08X}-\\U{:08X}", low, high);
  };
  constexpr uint32_t cuts[] = {0, 0x20, '"', '"' + 1, '\\', '\\' + 1, 0xD800, 0xE000, 0x110000};
  for (const auto& [low, high] : ranges) {
    const auto holds = [&, a = low, b = high](uint32_t c) { return a <= c && c <= b; };
    quote |= holds('"');
    backslash |= holds('\\');
    for (int i = 0; i < 3; ++i) controls[i] |= holds(uint32_t("\n\r\t"[i]));
    for (size_t i = 1; i + 1 < std::size(cuts); i += 2)
      add(std::max(low, cuts[i]), std::min(high, cuts[i + 1] - 1));
  }
  std::string s;
  const auto alternative = [&](const std::string& text) { s += (s.empty() ? "" : " | ") + text; };
  if (!plain.empty()) alternative("[" + plain + "]");
  if (quote) alternative(gbnf_literal("\\\""));
  if (backslash) alternative(gbnf_literal("\\\\"));
  for (int i = 0; i < 3; ++i) {
    if (controls[i]) alternative(gbnf_literal(std::string("\\") + "nrt"[i]));
  }
  return s.empty() || s.find('|') == std::string::npos ? s : "(" + s + ")";
}

class Pattern {
 public:
  Pattern(std::string_view text, const std::string& pointer) : text_(text), pointer_(pointer) {}

  std::string body() {
    std::string s;
    do {
      const bool from_start = take('^');
      const std::string middle = sequence(0);
      const bool to_end = take('$');
      s += fmt::format("{}{} {} {}", s.empty() ? "" : " | ", from_start ? "" : kAnything, middle,
                       to_end ? "" : kAnything);
    } while (take('|'));
    if (at_ < text_.size()) unsupported();
    return s;
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  [[noreturn]] void unsupported() const {
    refuse("schema.unsupported", pointer_,
           "a regular expression of characters, classes, groups, alternatives and repetitions, with ^ and $ "
           "at its ends",
           fmt::format("'{}' at character {}", text_.substr(std::min(at_, text_.size()), 12), at_ + 1));
  }

  std::string alternatives(int depth) {
    std::string s = sequence(depth);
    while (take('|')) s += " | " + sequence(depth);
    return s;
  }

  std::string sequence(int depth) {
    std::string s = "\"\"";
    while (at_ < text_.size() && peek() != '|' && peek() != ')' && peek() != '$') {
      s += " " + atom(depth);
      s += repetition();
    }
    return s;
  }

  std::string atom(int depth) {
    if (take('(')) {
      if (depth >= kMaxGroups) unsupported();
      if (take('?') && !take(':')) unsupported();
      const std::string s = "(" + alternatives(depth + 1) + ")";
      if (!take(')')) unsupported();
      return s;
    }
    std::string s;
    if (take('[')) {
      s = spelled(characters());
    } else if (take('.')) {
      s = spelled(complement(kLineEnds));
    } else {
      if (std::string_view("*+?{}^])").find(peek()) != std::string_view::npos) unsupported();
      s = spelled(one());
    }
    if (s.empty()) unsupported();
    return s;
  }

  Ranges characters() {
    const bool negated = take('^');
    Ranges all;
    while (!take(']')) {
      if (at_ >= text_.size()) unsupported();
      Ranges r = one();
      if (peek() == '-' && peek(1) != ']' && at_ + 1 < text_.size()) {
        ++at_;
        const Ranges end = one();
        if (r.size() != 1 || end.size() != 1 || r[0].first != r[0].second || end[0].first != end[0].second ||
            end[0].first < r[0].first) {
          unsupported();
        }
        r[0].second = end[0].second;
      }
      all.insert(all.end(), r.begin(), r.end());
    }
    return negated ? complement(all) : all;
  }

  // A character or an escape.
  Ranges one() {
    if (!take('\\')) {
      const Utf8Step step = utf8_step(text_, at_);
      at_ += size_t(step.length);
      return {{step.code, step.code}};
    }
    const char c = peek();
    ++at_;
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return complement(kDigits);
      case 'w':
        return kWord;
      case 'W':
        return complement(kWord);
      case 's':
        return kBlank;
      case 'S':
        return complement(kEveryBlank);
      case 'n':
        return {{'\n', '\n'}};
      case 'r':
        return {{'\r', '\r'}};
      case 't':
        return {{'\t', '\t'}};
      case 'x':
        return code(2);
      case 'u':
        return code(4);
      default:
        break;
    }
    if (c < '!' || c > '~' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) {
      --at_;
      unsupported();
    }
    return {{uint32_t(c), uint32_t(c)}};
  }

  Ranges code(int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      constexpr std::string_view hex = "0123456789abcdef";
      const char lower = peek() >= 'A' && peek() <= 'F' ? char(peek() + 32) : peek();
      const size_t digit = hex.find(lower);
      if (lower == '\0' || digit == std::string_view::npos) unsupported();
      value = value * 16 + uint32_t(digit);
    }
    if (value >= 0xD800 && value <= 0xDFFF) unsupported();
    return {{value, value}};
  }

  std::string repetition() {
    std::string mark;
    if (peek() == '*' || peek() == '+' || peek() == '?') {
      mark = text_[at_++];
    } else if (take('{')) {
      const int64_t least = number();
      int64_t most = least;
      mark = fmt::format("{{{}", least);
      if (take(',')) {
        mark += ",";
        if (peek() != '}') {
          most = number();
          mark += fmt::format("{}", most);
        }
      }
      if (!take('}') || most < least) unsupported();
      mark += "}";
    }
    if (!mark.empty()) take('?');  // prefers less: the same texts
    return mark;
  }

  int64_t number() {
    if (peek() < '0' || peek() > '9') unsupported();
    int64_t n = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at_)
      n = std::min<int64_t>(n * 10 + (peek() - '0'), kMaxRepetition + 1);
    if (n > kMaxRepetition) {
      refuse("schema.limit", pointer_, fmt::format("at most {} repetitions", kMaxRepetition), "more");
    }
    return n;
  }

  std::string_view text_;
  const std::string& pointer_;
  size_t at_ = 0;
};

// RFC 3339. The 29th of February is a date in leap years only, and years begin with 1 to 9.
constexpr const char* kDate =
    "([1-9] [0-9]{3} \"-\" (\"0\" [13578] | \"1\" [02]) \"-\" (\"0\" [1-9] | [12] [0-9] | \"3\" [01]) | "
    "[1-9] [0-9]{3} \"-\" (\"0\" [469] | \"11\") \"-\" (\"0\" [1-9] | [12] [0-9] | \"30\") | "
    "[1-9] [0-9]{3} \"-02-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8]) | "
    "[1-9] [0-9] (\"0\" [48] | [2468] [048] | [13579] [26]) \"-02-29\")";
constexpr const char* kClock = "([01] [0-9] | \"2\" [0-3]) \":\" [0-5] [0-9]";
constexpr const char* kLabel = "[a-z0-9] ([a-z0-9-]{0,20} [a-z0-9])?";

}  // namespace

std::string pattern_body(std::string_view pattern, const std::string& pointer) {
  return Pattern(pattern, pointer).body();
}

std::string format_body(std::string_view format) {
  const std::string time =
      fmt::format("{} \":\" [0-5] [0-9] (\".\" [0-9]{{1,6}})? (\"Z\" | [+-] {})", kClock, kClock);
  if (format == "date") return kDate;
  if (format == "time") return time;
  if (format == "date-time") return fmt::format("{} \"T\" {}", kDate, time);
  if (format == "uuid") return "[0-9a-f]{8} \"-\" ([0-9a-f]{4} \"-\"){3} [0-9a-f]{12}";
  const char* octet = "(\"25\" [0-5] | \"2\" [0-4] [0-9] | \"1\" [0-9] [0-9] | [1-9]? [0-9])";
  if (format == "ipv4") return fmt::format("{} (\".\" {}){{3}}", octet, octet);
  const std::string host = fmt::format("{} (\".\" {}){{0,4}} \".\" [a-z]{{2,10}}", kLabel, kLabel);
  if (format == "hostname") return host;
  if (format == "email")
    return fmt::format("[A-Za-z0-9] [A-Za-z0-9_+-]{{0,30}} (\".\" [A-Za-z0-9_+-]{{1,20}}){{0,3}} \"@\" {}",
                       host);
  if (format == "uri") {
    return fmt::format(
        "(\"http\" \"s\"? | \"ftp\") \"://\" {} (\"/\" [A-Za-z0-9._~-]*)* (\"?\" [A-Za-z0-9._~=&-]*)?", host);
  }
  return "";
}

}  // namespace plumb::schema
