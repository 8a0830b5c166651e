#include "text/jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/jinja_text.h"

namespace plumb::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) {
    for (size_t i = 0; i < source.size(); ++i) {  // every kind of line end is one \n
      if (source[i] == '\r') {
        s_ += '\n';
        i += i + 1 < source.size() && source[i + 1] == '\n';
      } else {
        s_ += source[i];
      }
    }
    if (!s_.empty() && s_.back() == '\n') s_.pop_back();
  }

  std::vector<Token> run() {
    while (at_ < s_.size()) data();
    add(TokenKind::end, "end of the template");
    return std::move(tokens_);
  }

 private:
  // From `at_`: plain text up to the next tag, and that tag.
  void data() {
    size_t tag = at_;
    while (true) {
      tag = s_.find('{', tag);
      if (tag == s_.npos || (tag + 1 < s_.size() && std::string_view("{%#").find(s_[tag + 1]) != s_.npos))
        break;
      ++tag;
    }
    if (tag == s_.npos) {
      put_data(s_.substr(at_));
      return advance(s_.size());
    }
    std::string before = s_.substr(at_, tag - at_);
    const char kind = s_[tag + 1];
    const char sign = tag + 2 < s_.size() ? s_[tag + 2] : ' ';
    const bool signed_tag = sign == '-' || sign == '+';
    if (sign == '-') {
      before = std::string(strip(before, {}, false, true));
    } else if (sign != '+' && kind != '{') {
      const size_t line = before.rfind('\n') + 1;
      if ((line > 0 || line_starting_) &&
          strip(std::string_view(before).substr(line), {}, true, true).empty()) {
        before.resize(line);
      }
    }
    put_data(before);
    advance(tag);
    const size_t inside = tag + (signed_tag ? 3 : 2);
    if (kind == '#') return comment(inside);
    if (kind == '%' && raw(inside)) return;
    add(kind == '{' ? TokenKind::output_begin : TokenKind::block_begin, s_.substr(tag, 2));
    advance(inside);
    expression(kind == '{' ? "}}" : "%}", kind == '{' ? TokenKind::output_end : TokenKind::block_end);
  }

  void put_data(std::string text) {
    if (!text.empty()) add(TokenKind::data, std::move(text));
  }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), place_}); }

  void advance(size_t to) {
    for (; at_ < to; ++at_) {
      if (s_[at_] == '\n') {
        ++place_.line;
        place_.column = 1;
      } else if ((static_cast<unsigned char>(s_[at_]) & 0xC0) != 0x80) {
        ++place_.column;
      }
    }
    line_starting_ = to > 0 && s_[to - 1] == '\n';
  }

  // Steps over a tag's end at `position`, of which `sign` is the character before: the whitespace it eats.
  void close(size_t position, char sign, bool trims_newline) {
    size_t end = position + 2;
    if (sign == '-') {
      end = s_.size() - strip(std::string_view(s_).substr(end), {}, true, false).size();
    } else if (sign != '+' && trims_newline && end < s_.size() && s_[end] == '\n') {
      ++end;
    }
    advance(end);
  }

  void comment(size_t inside) {
    const size_t end = s_.find("#}", inside);
    if (end == s_.npos) fail_at(place_, "template.syntax", "'#}' at the end of the comment", "none");
    const char sign = end > inside ? s_[end - 1] : ' ';
    close(end, sign, true);
  }

  size_t skip_space(size_t i) const {
    return s_.size() - strip(std::string_view(s_).substr(i), {}, true, false).size();
  }

  // True when `word` and the end of a block stand at i; then `end` is the place of "%}" and `sign` what
  // precedes it.
  bool block_word(size_t i, std::string_view word, size_t& end, char& sign) const {
    i = skip_space(i);
    if (s_.compare(i, word.size(), word) != 0) return false;
    i = skip_space(i + word.size());
    sign = i < s_.size() ? s_[i] : ' ';
    if (sign == '-' || sign == '+') ++i;
    end = i;
    return s_.compare(i, 2, "%}") == 0;
  }

  bool raw(size_t inside) {
    size_t end = 0, tag = inside;
    char sign = ' ';
    if (!block_word(inside, "raw", end, sign)) return false;
    close(end, sign, false);
    const size_t begin = at_;
    while ((tag = s_.find("{%", std::max(tag, begin))) != s_.npos) {
      const char before = tag + 2 < s_.size() ? s_[tag + 2] : ' ';
      if (block_word(tag + (before == '-' || before == '+' ? 3 : 2), "endraw", end, sign)) {
        std::string text = s_.substr(begin, tag - begin);
        if (before == '-') text = std::string(strip(text, {}, false, true));
        put_data(std::move(text));
        close(end, sign, true);
        return true;
      }
      ++tag;
    }
    fail_at(place_, "template.syntax", "'{% endraw %}'", "none");
  }

  void expression(std::string_view closing, TokenKind end_kind) {
    const Place begin = place_;
    std::string open;  // brackets
    while (true) {
      advance(skip_space(at_));
      if (at_ >= s_.size()) fail_at(begin, "template.syntax", fmt::format("'{}'", closing), "none");
      const bool has_sign = s_[at_] == '-' || (s_[at_] == '+' && closing[0] == '%');
      const size_t at = at_ + has_sign;
      if (open.empty() && s_.compare(at, 2, closing) == 0) {
        add(end_kind, std::string(closing));
        return close(at, has_sign ? s_[at_] : ' ', closing[0] == '%');
      }
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = s_[at_];
    size_t end = at_;
    if (is_name_start(c)) {
      while (end < s_.size() && (is_name_start(s_[end]) || is_digit(s_[end]))) ++end;
      add(TokenKind::name, s_.substr(at_, end - at_));
    } else if (is_digit(c)) {
      end = number();
    } else if (c == '"' || c == '\'') {
      for (++end; end < s_.size() && s_[end] != c; ++end) end += s_[end] == '\\';
      if (end >= s_.size()) fail_at(place_, "template.syntax", "the end of the string", "none");
      add(TokenKind::text, unescape(std::string_view(s_).substr(at_ + 1, end - at_ - 1)));
      ++end;
    } else {
      end = mark(open);
    }
    advance(end);
  }

  size_t number() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < s_.size() &&
             (is_digit(s_[end]) || (s_[end] == '_' && end + 1 < s_.size() && is_digit(s_[end + 1]))))
        ++end;
    };
    digits();
    bool real = false;
    if (end + 1 < s_.size() && s_[end] == '.' && is_digit(s_[end + 1])) real = true, ++end, digits();
    if (end < s_.size() && (s_[end] == 'e' || s_[end] == 'E')) {
      const size_t signs = end + 1 < s_.size() && (s_[end + 1] == '+' || s_[end + 1] == '-') ? 2 : 1;
      if (end + signs < s_.size() && is_digit(s_[end + signs])) real = true, end += signs, digits();
    }
    std::string text = s_.substr(at_, end - at_);
    text.erase(std::remove(text.begin(), text.end(), '_'), text.end());
    add(real ? TokenKind::real : TokenKind::integer, std::move(text));
    return end;
  }

  size_t mark(std::string& open) {
    const char c = s_[at_];
    const std::string two = s_.substr(at_, 2);
    for (const char* m : {"//", "**", "==", "!=", ">=", "<="}) {
      if (two == m) {
        add(TokenKind::mark, two);
        return at_ + 2;
      }
    }
    if (std::string_view("+-*/%~[](){}<>=.:|,;").find(c) == std::string_view::npos) {
      fail_at(place_, "template.syntax", "an expression", '\'' + printable(s_.substr(at_, 1)) + '\'');
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) {
        fail_at(place_, "template.syntax", open.empty() ? "no closing bracket" : std::string(1, open.back()),
                fmt::format("'{}'", c));
      }
      open.pop_back();
    }
    add(TokenKind::mark, std::string(1, c));
    return at_ + 1;
  }

  std::string s_;
  size_t at_ = 0;
  Place place_;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

void fail_at(Place place, const char* code, std::string expected, std::string found) {
  throw Error({.code = code,
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.file = "chat template",
                         .key = fmt::format("line {}, column {}", place.line, place.column)}});
}

std::vector<Token> lex(std::string_view source) { return Lexer(source).run(); }

}  // namespace plumb::jinja
