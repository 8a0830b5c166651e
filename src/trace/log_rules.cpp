#include "trace/log_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"

namespace plumb::trace {
namespace {

using Kind = LogAction::Kind;

[[noreturn]] void refuse(const std::string& file, size_t line, std::string expected, std::string_view found) {
  throw Error({.code = "log.rule",
               .expected = std::move(expected),
               .found = "\"" + printable(found) + "\"",
               .where = {.file = file, .key = fmt::format("line {}", line)}});
}

std::vector<std::string> words_of(std::string_view s) {
  std::vector<std::string> words;
  while (!(s = trimmed(s)).empty()) {
    const size_t end = std::min(s.find_first_of(" \t"), s.size());
    words.emplace_back(s.substr(0, end));
    s.remove_prefix(end);
  }
  return words;
}

// "[LAYER {L}] Input: {s}" -> literal, capture, literal, capture.
std::vector<LogPart> parts_of(std::string_view left, const std::string& file, size_t line) {
  std::vector<LogPart> parts;
  while (!left.empty()) {
    const size_t open = left.find('{');
    if (open != 0) parts.push_back({false, std::string(left.substr(0, open))});
    if (open == std::string_view::npos) break;
    const size_t close = left.find('}', open);
    if (close == std::string_view::npos || close == open + 1) refuse(file, line, "{name}", left);
    if (!parts.empty() && parts.back().capture) refuse(file, line, "text between two captures", left);
    parts.push_back({true, std::string(left.substr(open + 1, close - open - 1))});
    left.remove_prefix(close + 1);
  }
  if (parts.empty() || parts.front().capture) refuse(file, line, "text before the first capture", left);
  return parts;
}

std::string capture_of(const std::string& word, const std::string& file, size_t line) {
  if (word.size() < 3 || word.front() != '{' || word.back() != '}') refuse(file, line, "{name}", word);
  return word.substr(1, word.size() - 2);
}

Kind kind_of(const std::string& word, const std::string& file, size_t line) {
  static constexpr std::pair<const char*, Kind> kKinds[] = {
      {"stats", Kind::stats}, {"head", Kind::head},   {"ids", Kind::ids}, {"first", Kind::first},
      {"range", Kind::range}, {"pairs", Kind::pairs}, {"top", Kind::top}, {"named", Kind::named}};
  for (const auto& [name, kind] : kKinds) {
    if (word == name) return kind;
  }
  refuse(file, line, "stats, head, ids, first, range, pairs, top or named at the end", word);
}

// Right of the arrow; the forms are those of docs/log-rules.md.
LogAction action_of(std::string_view right, const std::string& file, size_t line) {
  LogAction a;
  std::vector<std::string> w = words_of(right);
  while (w.size() >= 2 && w[0] == "set") {
    std::string name = w[1];
    if (name.ends_with(';')) name.pop_back();
    a.sets.push_back(name);
    w.erase(w.begin(), w.begin() + 2);
  }
  if (w.empty() && !a.sets.empty()) return a;
  if (w.size() == 2 && (w[0] == "parameter" || w[0] == "parameters")) {
    a.kind = w[0] == "parameter" ? Kind::parameter : Kind::parameters;
    a.targets = {w[1]};
    return a;
  }
  if (w.size() < 3) refuse(file, line, "a value, a scope and a kind", right);
  a.kind = kind_of(w.back(), file, line), w.pop_back();
  a.scope = w.back(), w.pop_back();
  if (a.scope != "all" && a.scope != "last" && a.scope != "-")
    refuse(file, line, "all, last or - before the kind", a.scope);
  if (w.front() == "?") w.erase(w.begin());
  if (w.front() == "weight") a.weight = true, w.erase(w.begin());
  for (size_t i = 0; i < w.size(); ++i) {
    if (w[i] == "|" || w[i] == "at" || w[i] == "step" || w[i] == "call" || w[i] == "table") continue;
    if (w[i] == "row") {
      if (++i == w.size()) refuse(file, line, "{name} after row", right);
      a.row = capture_of(w[i], file, line);
    } else if (a.targets.empty() || w[i - 1] == "|") {
      a.targets.push_back(w[i]);
    } else if (w[i].front() != '{') {
      refuse(file, line, "| between two meanings", w[i]);
    }
  }
  if (a.targets.empty()) refuse(file, line, "the name of a value", right);
  return a;
}

bool number_like(std::string_view s) { return !s.empty() && leading_number(s).size() == s.size(); }

}  // namespace

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && std::isspace(uint8_t(s.front()))) s.remove_prefix(1);
  while (!s.empty() && std::isspace(uint8_t(s.back()))) s.remove_suffix(1);
  return s;
}

std::string_view leading_number(std::string_view text) {
  for (std::string_view word : {"nan", "-nan", "NaN", "inf", "-inf"}) {
    if (text.starts_with(word)) return text.substr(0, word.size());
  }
  const size_t sign = !text.empty() && text[0] == '+';
  double value;
  const auto [stop, error] = std::from_chars(text.data() + sign, text.data() + text.size(), value);
  return error == std::errc() || error == std::errc::result_out_of_range
             ? text.substr(0, size_t(stop - text.data()))
             : std::string_view();
}

std::vector<std::pair<std::string, std::string>> split_pairs(std::string_view text) {
  std::vector<std::pair<std::string, std::string>> out;
  for (size_t at = 0; (at = text.find('=', at)) != std::string_view::npos; ++at) {
    size_t begin = at;
    while (begin > 0 && (std::isalnum(uint8_t(text[begin - 1])) || text[begin - 1] == '_')) --begin;
    const std::string_view number = leading_number(trimmed(text.substr(at + 1)));
    if (begin < at && !number.empty()) out.emplace_back(text.substr(begin, at - begin), number);
  }
  return out;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> out;
  const size_t open = text.find('['), close = std::min(text.find(']'), text.size());
  if (open == std::string_view::npos || open > close) return out;
  text = text.substr(open + 1, close - open - 1);
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = trimmed(text.substr(0, comma));
    if (number_like(item)) out.emplace_back(item);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return out;
}

LogRules LogRules::parse(std::string_view text, const std::string& name) {
  LogRules rules;
  for (size_t line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view whole = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (whole.empty() || whole == "#" || whole.starts_with("# ")) continue;
    const size_t arrow = whole.rfind(" -> ");
    if (arrow == std::string_view::npos) refuse(name, line, "TEXT -> MEANING", whole);
    rules.rules_.push_back({parts_of(trimmed(whole.substr(0, arrow)), name, line),
                            action_of(whole.substr(arrow + 4), name, line)});
  }
  if (rules.rules_.empty()) refuse(name, 1, "at least one rule", "");
  return rules;
}

}  // namespace plumb::trace
