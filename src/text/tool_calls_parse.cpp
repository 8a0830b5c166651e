// The parser of replies. Where a call ends is found by the brackets of its JSON outside strings, not by the
// mark behind it, which an argument may contain.
#include <algorithm>
#include <optional>

#include "base/error.h"
#include "text/tool_calls.h"

namespace plumb {
namespace {

constexpr std::string_view kOpen = "<think>", kClose = "</think>", kBlanks = " \t\r\n";

// How many bytes at the end of the text may be the beginning of the mark.
size_t beginning_of(std::string_view mark, std::string_view text) {
  for (size_t n = std::min(mark.size() - 1, text.size()); n > 0; --n) {
    if (text.substr(text.size() - n) == mark.substr(0, n)) return n;
  }
  return 0;
}

size_t skip_blanks(std::string_view text, size_t at) {
  return std::min(text.find_first_not_of(kBlanks, at), text.size());
}

// Behind the JSON array or object that begins at `at`; npos where it has not ended yet.
size_t end_of_json(std::string_view text, size_t at) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = at; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        quoted = false;
      }
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return i + 1;
    }
  }
  return std::string_view::npos;
}

std::optional<Json> json_of(std::string_view text) {
  try {
    return parse_json(text, "reply");
  } catch (const Error&) {
    return std::nullopt;
  }
}

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

}  // namespace

ReplyParser::ReplyParser(const Options& options)
    : options_(options), state_(options.in_thought ? State::thought : State::start) {}

std::string_view ReplyParser::mark() const {
  switch (options_.style) {
    case ToolStyle::hermes:
      return "<tool_call>";
    case ToolStyle::mistral:
      return "[TOOL_CALLS]";
    case ToolStyle::llama3:
      return "<|python_tag|>";
    case ToolStyle::none:
      break;
  }
  return "";
}

std::string ReplyParser::new_id() {
  // Mistral's templates ask for nine letters and digits.
  const bool nine = options_.style == ToolStyle::mistral;
  constexpr std::string_view letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id = nine ? "" : "call_";
  for (uint64_t i = 0; i < (nine ? 9u : 24u); ++i) {
    id += letters[mix(mix(options_.id_seed) + mix(uint64_t(calls_) * 64 + i)) % letters.size()];
  }
  return id;
}

void ReplyParser::emit(std::vector<ReplyPart>& out, ReplyPart::Kind kind, std::string_view text) {
  if (trim_) {
    text.remove_prefix(skip_blanks(text, 0));
    if (!text.empty()) trim_ = false;
  }
  if (text.empty()) return;
  if (kind == ReplyPart::Kind::content && text.find_first_not_of(kBlanks) != std::string_view::npos)
    fresh_ = false;
  if (!out.empty() && out.back().kind == kind) {
    out.back().text += text;
  } else {
    out.push_back({.kind = kind, .text = std::string(text)});
  }
}

bool ReplyParser::add_call(std::vector<ReplyPart>& out, const Json& call) {
  const Json *n = call.find("name"), *arguments = call.find("arguments");
  if (!arguments) arguments = call.find("parameters");
  if (!n || !n->text() || !arguments || !arguments->object()) return false;
  out.push_back({.kind = ReplyPart::Kind::call, .call = {new_id(), *n->text(), dump(*arguments)}});
  ++calls_;
  return true;
}

std::vector<ReplyPart> ReplyParser::push(std::string_view text) {
  held_ += text;
  std::vector<ReplyPart> out;
  while (step(out, false)) {
  }
  return out;
}

std::vector<ReplyPart> ReplyParser::finish() {
  std::vector<ReplyPart> out;
  while (step(out, true)) {
  }
  return out;
}

// One step over what is held; false when more text is needed.
bool ReplyParser::step(std::vector<ReplyPart>& out, bool last) {
  switch (state_) {
    case State::start:
      return start(last);
    case State::thought:
      return until_mark(out, kClose, ReplyPart::Kind::reasoning, State::text, last);
    case State::call:
      return take_call(out, last);
    case State::closing:
      return close_call(last);
    case State::text:
      break;
  }
  if (options_.style == ToolStyle::llama3 && (fresh_ || calls_ > 0)) {
    const size_t at = skip_blanks(held_, 0);
    if (at == held_.size() && !last) return false;
    if (at < held_.size() && (held_[at] == '{' || (calls_ > 0 && held_[at] == ';'))) {
      opening_ = held_.substr(0, held_[at] == ';' ? at + 1 : at);
      held_.erase(0, opening_.size());
      state_ = State::call;
      return true;
    }
  }
  return until_mark(out, mark(), ReplyPart::Kind::content, State::call, last);
}

// Whether the reply begins with a thought.
bool ReplyParser::start(bool last) {
  state_ = State::text;
  if (!options_.reasoning) return true;
  const size_t at = skip_blanks(held_, 0);
  const std::string_view rest = std::string_view(held_).substr(at);
  if (rest.starts_with(kOpen)) {
    held_.erase(0, at + kOpen.size());
    state_ = State::thought;
    trim_ = true;
  } else if (!last && kOpen.starts_with(rest)) {
    state_ = State::start;
    return false;
  }
  return true;
}

// Emits up to the mark and goes on behind it in another state.
bool ReplyParser::until_mark(std::vector<ReplyPart>& out, std::string_view mark, ReplyPart::Kind kind,
                             State next, bool last) {
  const size_t at = mark.empty() ? std::string::npos : held_.find(mark);
  if (at != std::string::npos) {
    std::string_view before = std::string_view(held_).substr(0, at);
    // Blanks before a mark belong to it.
    before = before.substr(0, before.find_last_not_of(kBlanks) + 1);
    emit(out, kind, before);
    opening_ = held_.substr(before.size(), at + mark.size() - before.size());
    held_.erase(0, at + mark.size());
    if (next == State::text) trim_ = true;
    state_ = next;
    return true;
  }
  size_t shown = held_.size();
  if (!last && !mark.empty()) {
    shown -= beginning_of(mark, held_);
    shown = std::string_view(held_).substr(0, shown).find_last_not_of(kBlanks) + 1;  // npos + 1 is 0
  }
  emit(out, kind, std::string_view(held_).substr(0, shown));
  held_.erase(0, shown);
  return false;
}

// What is held begins behind a mark.
bool ReplyParser::take_call(std::vector<ReplyPart>& out, bool last) {
  const size_t at = skip_blanks(held_, 0);
  if (at == held_.size() && !last) return false;
  const bool bracket = at < held_.size() && (held_[at] == '{' || held_[at] == '[');
  const size_t end = bracket ? end_of_json(held_, at) : std::string::npos;
  if (bracket && end == std::string::npos && !last) return false;
  const std::optional<Json> json =
      end == std::string::npos ? std::nullopt : json_of(std::string_view(held_).substr(at, end - at));
  std::vector<ReplyPart> found;
  bool right = json.has_value();
  if (json) {
    const Json::Array one = {*json};
    for (const Json& call : json->array() ? *json->array() : one) right = right && add_call(found, call);
  }
  state_ = State::text;
  if (!right || found.empty()) {  // it only looked like a call
    calls_ -= int(found.size());
    const size_t rest = end == std::string::npos ? (bracket ? held_.size() : 0) : end;
    trim_ = false;
    fresh_ = false;
    emit(out, ReplyPart::Kind::content, opening_ + held_.substr(0, rest));
    held_.erase(0, rest);
    return true;
  }
  out.insert(out.end(), found.begin(), found.end());
  held_.erase(0, end);
  trim_ = true;
  if (options_.style == ToolStyle::hermes) state_ = State::closing;
  return true;
}

// Drops the mark behind a call, if it is there.
bool ReplyParser::close_call(bool last) {
  constexpr std::string_view close = "</tool_call>";
  const size_t at = skip_blanks(held_, 0);
  const std::string_view rest = std::string_view(held_).substr(at);
  if (!last && rest.size() < close.size() && close.starts_with(rest)) return false;
  if (rest.starts_with(close)) held_.erase(0, at + close.size());
  state_ = State::text;
  return true;
}

}  // namespace plumb
