// A log, line by line, becomes an evidence file (docs/log-rules.md).
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>

#include "base/error.h"
#include "trace/log_rules.h"
#include "trace/trace.h"

namespace plumb::trace {
namespace {

constexpr int64_t kMaxOtherLines = 10000;  // kept of those that no rule describes

using Kind = LogAction::Kind;
using Captures = std::vector<std::pair<std::string, std::string>>;

const std::string* find(const Captures& captures, std::string_view name) {
  for (const auto& [key, text] : captures) {
    if (key == name) return &text;
  }
  return nullptr;
}

// A capture's text, or nothing where it is not what the capture's name asks for.
bool fits(const std::string& name, std::string_view text, bool last, std::string& out) {
  if (name == "_") return true;
  if (name == "s") return out = text, !split_pairs(text).empty();
  if (name == "v") return out = text, text.find('[') != std::string_view::npos;
  text = trimmed(text);
  const std::string_view number = leading_number(text);
  return out = number, !number.empty() && (last || number.size() == text.size());
}

bool match(const std::vector<LogPart>& parts, std::string_view line, Captures& captures) {
  const size_t start = line.find(parts[0].text);
  if (start == std::string_view::npos) return false;
  line.remove_prefix(start + parts[0].text.size());
  for (size_t i = 1; i < parts.size(); ++i) {
    if (!parts[i].capture) {  // literals were consumed with the capture before them
      continue;
    }
    const bool last = i + 1 == parts.size();
    const size_t end = last ? line.size() : line.find(parts[i + 1].text);
    if (end == std::string_view::npos) return false;
    std::string text;
    if (!fits(parts[i].text, line.substr(0, end), last, text)) return false;
    captures.emplace_back(parts[i].text, text);
    line.remove_prefix(last ? end : end + parts[i + 1].text.size());
  }
  return true;
}

std::string filled(const std::string& pattern, const Captures& captures) {
  std::string out;
  for (size_t at = 0; at < pattern.size();) {
    const size_t close = pattern[at] == '{' ? pattern.find('}', at) : std::string::npos;
    if (close == std::string::npos) {
      out += pattern[at++];
      continue;
    }
    const std::string* text = find(captures, std::string_view(pattern).substr(at + 1, close - at - 1));
    out += text ? *text : "";
    at = close + 1;
  }
  return out;
}

// What the engine calls the line: "[LAYER 0] After Attention".
std::string label_of(const LogRule& rule, const Captures& c) {
  std::string text;
  for (const LogPart& p : rule.parts) {
    if (p.capture && (p.text == "s" || p.text == "v" || p.text == "_")) break;
    const std::string* found = p.capture ? find(c, p.text) : nullptr;
    text += p.capture ? (found ? *found : "") : p.text;
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == ':')) text.pop_back();
  return text.substr(0, 200);
}

Json as_integer(const std::string& text) {
  int64_t v = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || stop != text.data() + text.size() || v < 0) return text;
  return v;
}

std::string spelled(const std::string& number) {  // as records spell what is not finite
  return number == "NaN" || number == "-nan" ? "nan" : number;
}

// What has been gathered so far.
class Import {
 public:
  void take(const LogRule& rule, const Captures& c) {
    const LogAction& a = rule.action;
    label_ = label_of(rule, c);
    for (const std::string& name : a.sets) {
      // The capture may bear another name than what it is kept as: the first number of the line.
      const std::string* text = find(c, name);
      for (size_t i = 0; !text && i < c.size(); ++i) text = &c[i].second;
      if (name == "step" && text) step_ = as_integer(*text).integer().value_or(0);
    }
    switch (a.kind) {
      case Kind::none:
        return;
      case Kind::parameter:
        if (!c.empty()) parameters_.set(a.targets[0], c.back().second);
        return;
      case Kind::parameters:
        parameters_.set(a.targets[0], pairs_of(c));
        return;
      case Kind::ids:
        return ids(a, c);
      case Kind::first:
      case Kind::range:
        return positions_.push(as_object(c));
      case Kind::pairs:
        return rope_.push(as_object(c));
      case Kind::stats:
        return stats(a, c);
      case Kind::head:
        return head(a, c);
      case Kind::top:
      case Kind::named:
        return sample(a, c);
    }
  }

  void other(std::string_view line) { other_.push(Json(line)); }

  Json evidence(const std::string& name, int64_t lines, int64_t matched) {
    Json j;
    j.set("plumb_trace", 1);
    j.set("level", "stats");
    Json input;
    if (!tokens_.empty()) input.set("tokens", tokens_);
    if (input.object()) j.set("input", std::move(input));
    const auto put = [&](const char* member, Json value) {
      if (!value.is_null()) j.set(member, std::move(value));
    };
    put("parameters", std::move(parameters_)), put("positions", std::move(positions_));
    put("rope", std::move(rope_)), put("weights", std::move(weights_));
    if (!generated_.empty()) j.set("generated", generated_);
    Json log;
    log.set("file", name), log.set("lines", lines), log.set("matched", matched);
    log.set("other", other_.is_null() ? Json(Json::Array{}) : std::move(other_));
    j.set("log", std::move(log));
    Json::Array records;
    for (Entry& e : records_) {
      if (!e.samples.empty()) e.json.set("samples", std::move(e.samples));
      if (!e.top.empty()) e.json.set("top", std::move(e.top));
      records.push_back(std::move(e.json));
    }
    j.set("records", std::move(records));
    return j;
  }

 private:
  static Json pairs_of(const Captures& c) {
    Json j = Json::Object();
    const std::string* s = find(c, "s");
    for (auto& [key, number] : split_pairs(s ? *s : "")) {
      if (!j.find(key)) j.set(key, spelled(number));
    }
    return j;
  }

  static Json as_object(const Captures& c) {
    Json j = Json::Object();
    for (const auto& [key, text] : c) {
      if (key != "s" && key != "v" && !j.find(key)) j.set(key, text);
    }
    for (auto& [key, number] : split_pairs(find(c, "s") ? *find(c, "s") : "")) {
      if (!j.find(key)) j.set(key, spelled(number));
    }
    return j;
  }

  void ids(const LogAction& a, const Captures& c) {
    Json::Array list;
    for (const std::string& id : split_list(find(c, "v") ? *find(c, "v") : "")) {
      if (const Json n = as_integer(id); n.integer()) list.push_back(n);
    }
    (a.targets[0] == "generated" ? generated_ : tokens_) = std::move(list);
  }

  Json record(const LogAction& a, const Captures& c) const {
    Json r;
    if (a.targets.size() == 1) {
      r.set("value", filled(a.targets[0], c));
    } else {
      Json::Array names;
      for (const std::string& t : a.targets) names.push_back(filled(t, c));
      r.set("candidates", std::move(names));
    }
    r.set("raw", label_), r.set("step", step_);
    if (a.scope != "-") r.set("scope", a.scope);
    return r;
  }

  void stats(const LogAction& a, const Captures& c) {
    Json stats = Json::Object(), more;
    const Json pairs = pairs_of(c);
    for (const auto& [key, number] : *pairs.object()) {
      const bool known = std::find(std::begin(kStatNames), std::end(kStatNames), key) != std::end(kStatNames);
      (known ? stats : more).set(key, number);
    }
    if (a.weight) {
      Json w;
      w.set("name", filled(a.targets[0], c)), w.set("stats", std::move(stats));
      if (!more.is_null()) w.set("more", std::move(more));
      return weights_.push(std::move(w));
    }
    Json r = record(a, c);
    r.set("stats", std::move(stats));
    if (!more.is_null()) r.set("more", std::move(more));
    add(a, c, std::move(r));
  }

  void head(const LogAction& a, const Captures& c) {
    Json::Array numbers;
    for (const std::string& n : split_list(find(c, "v") ? *find(c, "v") : "")) numbers.push_back(spelled(n));
    const size_t all = numbers.size();
    numbers.resize(std::min<size_t>(all, 8));
    Json r = record(a, c);
    if (const std::string* id = a.row.empty() ? nullptr : find(c, a.row)) r.set("token_id", as_integer(*id));
    r.set("head8", std::move(numbers));
    add(a, c, std::move(r));
  }

  // Added to the record of the same value and step, so that a list of lines is one record.
  void sample(const LogAction& a, const Captures& c) {
    const std::string *token = find(c, "t"), *x = find(c, "x");
    if (!token || !x || !as_integer(*token).integer()) return;
    const auto [at, added] =
        lists_.try_emplace(fmt::format("{} {}", filled(a.targets[0], c), step_), records_.size());
    if (added) records_.push_back({record(a, c)});
    Entry& entry = records_[at->second];
    entry.samples.push_back(Json::Array{as_integer(*token), spelled(*x)});
    if (a.kind == Kind::top) entry.top.push_back(as_integer(*token));
  }

  void add(const LogAction& a, const Captures& c, Json r) {
    lists_[fmt::format("{} {}", filled(a.targets[0], c), step_)] = records_.size();
    records_.push_back({std::move(r)});
  }

  struct Entry {
    Json json;
    Json::Array samples = {}, top = {};
  };

  int64_t step_ = 0;
  std::string label_;  // of the line at hand
  Json parameters_, positions_, rope_, weights_, other_;
  Json::Array tokens_, generated_;
  std::vector<Entry> records_;
  std::map<std::string, size_t> lists_;  // the latest record of a value and step
};

}  // namespace

Json LogRules::import(std::string_view log, const std::string& name) const {
  if (int64_t(log.size()) > kMaxLogBytes)
    throw Error({.code = "log.too_large",
                 .expected = fmt::format("at most {} bytes", kMaxLogBytes),
                 .found = std::to_string(log.size()),
                 .where = {.file = name}});
  Import import;
  int64_t lines = 0, matched = 0;
  while (!log.empty()) {
    const size_t end = std::min(log.find('\n'), log.size());
    const std::string_view line = log.substr(0, end);
    log.remove_prefix(std::min(end + 1, log.size()));
    ++lines;
    bool known = false;
    for (const LogRule& rule : rules_) {
      Captures captures;
      if (!match(rule.parts, line, captures)) continue;
      import.take(rule, captures);
      known = true;
      break;
    }
    matched += known;
    if (!known && lines - matched <= kMaxOtherLines) import.other(line);
  }
  if (matched == 0)
    throw Error({.code = "log.empty",
                 .expected = "lines that a rule describes",
                 .found = fmt::format("{} lines that none does", lines),
                 .where = {.file = name}});
  return import.evidence(name, lines, matched);
}

}  // namespace plumb::trace
