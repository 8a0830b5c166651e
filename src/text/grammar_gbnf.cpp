// The parser is a recursive descent with a bound on nested groups. A newline ends a rule unless it stands
// inside parentheses, behind ::= or behind |.
#include "text/grammar_gbnf.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "base/utf8.h"

namespace plumb::grammar {
namespace {

using Ranges = std::vector<std::pair<uint32_t, uint32_t>>;

constexpr int kMaxMarks = 8;
constexpr uint32_t kLastCharacter = 0x10FFFF;

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

// Sorted and merged.
Ranges tidy(Ranges ranges) {
  std::sort(ranges.begin(), ranges.end());
  Ranges out;
  for (const auto& [low, high] : ranges) {
    if (!out.empty() && low <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, high);
    } else {
      out.push_back({low, high});
    }
  }
  return out;
}

Ranges complement(const Ranges& ranges) {
  Ranges out;
  uint32_t next = 0;
  for (const auto& [low, high] : ranges) {
    if (low > next) out.push_back({next, low - 1});
    next = high + 1;
  }
  if (next <= kLastCharacter) out.push_back({next, kLastCharacter});
  return out;
}

class Parser {
 public:
  Parser(std::string_view text, const Tokenizer* tokenizer) : text_(text), tokenizer_(tokenizer) {
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '\n') lines_.push_back(i + 1);
    }
  }

  Source parse() {
    if (int64_t(text_.size()) > kMaxGrammarBytes) {
      fail("grammar.limit", {}, fmt::format("at most {} bytes", kMaxGrammarBytes),
           fmt::format("{} bytes", text_.size()));
    }
    for (space(true); at_ < text_.size(); space(true)) rule();
    const auto root = names_.find("root");
    for (size_t r = 0; r < out_.rules.size(); ++r) {
      if (out_.bodies[r] < 0) {
        fail("grammar.rule", out_.rules[r].place, "names of rules that the grammar defines",
             fmt::format("'{}', which has no definition", printable(out_.rules[r].name)));
      }
    }
    if (root == names_.end()) fail("grammar.rule", place(), "a rule 'root'", "none");
    out_.root = root->second;
    return std::move(out_);
  }

 private:
  char peek(size_t ahead = 0) const { return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0'; }
  bool starts(std::string_view s) const { return text_.substr(at_).starts_with(s); }

  Place place_of(size_t at) const {
    const auto next = std::upper_bound(lines_.begin(), lines_.end(), at);
    return {int(next - lines_.begin()), int(at - *(next - 1)) + 1};
  }
  Place place() const { return place_of(at_); }

  [[noreturn]] void unexpected(std::string expected) const {
    fail("grammar.syntax", place(), std::move(expected),
         at_ >= text_.size() ? "the end" : fmt::format("'{}'", printable(text_.substr(at_, 12))));
  }

  // Blanks and comments; line ends too where the rule goes on behind them.
  void space(bool lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n' && text_[at_] != '\r') ++at_;
      } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        break;
      }
    }
  }

  int rule_id(std::string_view name, size_t at) {
    const auto [it, fresh] = names_.try_emplace(std::string(name), int(out_.rules.size()));
    if (fresh) {
      if (int64_t(out_.rules.size()) >= kMaxGrammarRules) {
        fail("grammar.limit", place_of(at), fmt::format("at most {} rules", kMaxGrammarRules), "more");
      }
      out_.rules.push_back({.name = std::string(name), .place = place_of(at)});
      out_.bodies.push_back(-1);
    }
    return it->second;
  }

  std::string_view name() {
    const size_t begin = at_;
    while (is_name(peek())) ++at_;
    return text_.substr(begin, at_ - begin);
  }

  void rule() {
    const size_t begin = at_;
    const std::string_view n = name();
    if (n.empty()) unexpected("the name of a rule");
    space(false);
    if (!starts("::=")) unexpected("::=");
    at_ += 3;
    const int id = rule_id(n, begin);
    if (out_.bodies[size_t(id)] >= 0) {
      fail("grammar.rule", place_of(begin), "each rule once", fmt::format("'{}' again", printable(n)));
    }
    out_.rules[size_t(id)].place = place_of(begin);
    space(true);
    const int body = alternatives(0);
    out_.bodies[size_t(id)] = body;
    if (at_ < text_.size() && peek() != '\n' && peek() != '\r') unexpected("the end of the rule");
  }

  int add(Part part) {
    out_.parts.push_back(std::move(part));
    return int(out_.parts.size()) - 1;
  }

  int alternatives(int depth) {
    std::vector<int> parts = {sequence(depth)};
    while (peek() == '|') {
      ++at_;
      space(true);
      parts.push_back(sequence(depth));
    }
    return parts.size() == 1 ? parts[0] : add({.kind = Part::Kind::choice, .parts = std::move(parts)});
  }

  int sequence(int depth) {
    std::vector<int> parts;
    while (true) {
      const int part = item(depth);
      if (part < 0) break;
      space(depth > 0);
      parts.push_back(part);
      for (int marks = 0; repetition(parts); ++marks) {
        if (marks == kMaxMarks) unexpected(fmt::format("at most {} marks of repetition in a row", kMaxMarks));
        space(depth > 0);
      }
    }
    return add({.kind = Part::Kind::sequence, .parts = std::move(parts)});
  }

  // A literal, class, token, group or name; -1 where none begins.
  int item(int depth) {
    const char c = peek();
    if (c == '"') return literal();
    if (c == '[') return character_class();
    if (c == '<' || (c == '!' && peek(1) == '<')) return token();
    if (c == '(') return group(depth);
    if (c == '.') {
      ++at_;
      return add({.kind = Part::Kind::characters, .ranges = {{0, kLastCharacter}}});
    }
    if (!is_name(c)) return -1;
    const size_t begin = at_;
    const std::string_view n = name();
    return add({.kind = Part::Kind::rule, .id = rule_id(n, begin)});
  }

  int group(int depth) {
    if (depth >= kMaxGrammarNesting) {
      fail("grammar.limit", place(), fmt::format("at most {} nested groups", kMaxGrammarNesting), "more");
    }
    const size_t begin = at_++;
    space(true);
    const int part = alternatives(depth + 1);
    if (peek() != ')') {
      const Place p = place_of(begin);
      unexpected(fmt::format("a ) for the group of line {}, column {}", p.line, p.column));
    }
    ++at_;
    return part;
  }

  int literal() {
    const size_t begin = at_++;
    std::vector<int> parts;
    while (peek() != '"') {
      if (at_ >= text_.size()) {
        at_ = begin;
        unexpected("a \" at both ends of a literal");
      }
      const uint32_t c = character();
      parts.push_back(add({.kind = Part::Kind::characters, .ranges = {{c, c}}}));
    }
    ++at_;
    return add({.kind = Part::Kind::sequence, .parts = std::move(parts)});
  }

  int character_class() {
    const size_t begin = at_++;
    const bool negated = peek() == '^';
    if (negated) ++at_;
    Ranges ranges;
    while (peek() != ']') {
      if (at_ >= text_.size()) {
        at_ = begin;
        unexpected("a ] at the end of a character class");
      }
      const uint32_t low = character();
      uint32_t high = low;
      if (peek() == '-' && peek(1) != ']') {
        ++at_;
        const size_t end = at_;
        high = character();
        if (high < low) {
          at_ = end;
          unexpected("a range whose end is not before its beginning");
        }
      }
      ranges.push_back({low, high});
    }
    ++at_;
    Ranges tidied = tidy(std::move(ranges));
    if (negated) tidied = complement(tidied);
    if (tidied.empty()) {
      at_ = begin;
      unexpected("a class with at least one character");
    }
    return add({.kind = Part::Kind::characters, .ranges = std::move(tidied)});
  }

  uint32_t character() {
    if (peek() == '\\') return escape();
    if (at_ >= text_.size()) unexpected("a character");
    const Utf8Step step = utf8_step(text_, at_);
    if (step.state != Utf8Step::State::valid) unexpected("UTF-8");
    at_ += size_t(step.length);
    return step.code;
  }

  uint32_t escape() {
    const char c = peek(1);
    constexpr std::string_view same = "\\\"[]-^/";
    if (const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0; digits > 0) {
      uint64_t code = 0;
      for (size_t i = 0; i < digits; ++i) {
        const char d = peek(2 + i);
        const int value = d >= '0' && d <= '9'   ? d - '0'
                          : d >= 'a' && d <= 'f' ? d - 'a' + 10
                          : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                                 : -1;
        if (value < 0) unexpected(fmt::format("{} hexadecimal digits", digits));
        code = code * 16 + uint64_t(value);
      }
      if (code > kLastCharacter || (code >= 0xD800 && code <= 0xDFFF)) unexpected("a character of Unicode");
      at_ += 2 + digits;
      return uint32_t(code);
    }
    std::optional<char> value;
    if (c == 'n') value = '\n';
    if (c == 'r') value = '\r';
    if (c == 't') value = '\t';
    if (c != '\0' && same.find(c) != std::string_view::npos) value = c;
    if (!value) unexpected("an escape: \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\/ \\xHH \\uHHHH \\UHHHHHHHH");
    at_ += 2;
    return uint32_t(uint8_t(*value));
  }

  // <[17]>, <text>, and with a ! before them: any other token.
  int token() {
    const size_t begin = at_;
    const Part::Kind kind = peek() == '!' ? Part::Kind::other_token : Part::Kind::token;
    at_ += kind == Part::Kind::other_token ? 2 : 1;
    const size_t close = text_.find('>', at_);
    if (close == std::string_view::npos ||
        text_.substr(at_, close - at_).find('\n') != std::string_view::npos) {
      at_ = begin;
      unexpected("a token as <text> or <[id]>");
    }
    const std::string_view inner = text_.substr(at_, close - at_);
    int id = -1;
    if (inner.size() > 2 && inner.size() < 11 && inner.front() == '[' && inner.back() == ']') {
      int64_t value = 0;
      for (char c : inner.substr(1, inner.size() - 2))
        value = c < '0' || c > '9' ? INT32_MAX : value * 10 + (c - '0');
      if (value < (tokenizer_ ? tokenizer_->size() : INT32_MAX)) id = int(value);
    } else if (tokenizer_) {
      const std::vector<int> ids = tokenizer_->encode(text_.substr(at_ - 1, inner.size() + 2),
                                                      {.add_special = false, .parse_special = true});
      if (ids.size() == 1) id = ids[0];
    }
    if (id < 0) {
      at_ = begin;
      unexpected("the text or id of one token of the vocabulary");
    }
    at_ = close + 1;
    return add({.kind = kind, .id = id});
  }

  // * + ? {m} {m,} {m,n} behind the last part.
  bool repetition(std::vector<int>& parts) {
    int least = 0, most = -1;
    const size_t begin = at_;
    if (peek() == '*' || peek() == '+' || peek() == '?') {
      least = peek() == '+' ? 1 : 0;
      most = peek() == '?' ? 1 : -1;
      ++at_;
    } else if (peek() == '{') {
      ++at_;
      least = most = count();
      if (peek() == ',') {
        ++at_;
        space(true);
        most = peek() == '}' ? -1 : count();
      }
      if (peek() != '}') unexpected("}");
      ++at_;
    } else {
      return false;
    }
    if (most >= 0 && most < least) {
      at_ = begin;
      unexpected("{m,n} with m not above n");
    }
    parts.back() = add({.kind = Part::Kind::repeat, .parts = {parts.back()}, .least = least, .most = most});
    return true;
  }

  int count() {
    space(true);
    if (peek() < '0' || peek() > '9') unexpected("a number");
    const size_t begin = at_;
    int64_t value = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at_)
      value = std::min<int64_t>(value * 10 + (peek() - '0'), INT32_MAX);
    if (value > kMaxGrammarRepetition) {
      fail("grammar.limit", place_of(begin), fmt::format("at most {} repetitions", kMaxGrammarRepetition),
           std::string(printable(text_.substr(begin, at_ - begin))));
    }
    space(true);
    return int(value);
  }

  std::string_view text_;
  const Tokenizer* tokenizer_;
  size_t at_ = 0;
  std::vector<size_t> lines_ = {0};  // where each begins
  Source out_;
  std::unordered_map<std::string, int> names_;
};

}  // namespace

Source parse_gbnf(std::string_view source, const Tokenizer* tokenizer) {
  return Parser(source, tokenizer).parse();
}

}  // namespace plumb::grammar
