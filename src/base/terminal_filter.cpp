#include "base/terminal_filter.h"

#include <fmt/format.h>

#include <utility>

#include "base/utf8.h"

namespace plumb {
namespace {

bool is_control(uint32_t c) { return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7F && c < 0xA0); }

bool reorders(uint32_t c) { return (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069); }

}  // namespace

void TerminalFilter::show(std::string& out, uint32_t code) {
  if (std::exchange(carriage_return_, false) && code != '\n') out += "\\r";
  if (code == '\r') {
    carriage_return_ = true;
  } else if (code == 0x1B) {
    out += "\\e";
  } else if (is_control(code)) {
    out += fmt::format("\\x{:02x}", code);
  } else if (reorders(code)) {
    out += fmt::format("\\u{{{:x}}}", code);
  } else {
    append_utf8(out, code);
  }
}

std::string TerminalFilter::push(std::string_view piece) {
  std::string out;
  held_ += piece;
  size_t at = 0;
  while (at < held_.size()) {
    const Utf8Step step = utf8_step(held_, at);
    if (step.state == Utf8Step::State::incomplete) break;
    show(out, step.code);
    at += size_t(step.length);
  }
  held_.erase(0, at);
  return out;
}

std::string TerminalFilter::finish() {
  std::string out;
  if (!held_.empty()) show(out, kReplacementCharacter);
  held_.clear();
  if (std::exchange(carriage_return_, false)) out += "\\r";
  return out;
}

std::string terminal_text(std::string_view text) {
  TerminalFilter filter;
  std::string out = filter.push(text);
  return out + filter.finish();
}

}  // namespace plumb
