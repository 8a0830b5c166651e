#include "chat/input.h"

namespace plumb {
namespace {

constexpr std::string_view kQuotes = "\"\"\"";

}  // namespace

void InputLines::add(std::string_view line) {
  if (has_line_) text_ += '\n';
  text_ += line;
  has_line_ = true;
}

bool InputLines::push(std::string_view line) {
  if (!begun_ && line.starts_with(kQuotes)) {
    begun_ = block_ = literal_ = true;
    line.remove_prefix(kQuotes.size());
    if (line.empty()) return false;  // the block begins on the next line
  }
  begun_ = true;
  if (block_) {
    const bool closed = line.ends_with(kQuotes);
    if (closed) line.remove_suffix(kQuotes.size());
    if (!closed || !line.empty()) add(line);
    block_ = !closed;
    return closed;
  }
  const bool continued = line.ends_with('\\');
  if (continued) line.remove_suffix(1);
  add(line);
  return !continued && !multiline_;
}

}  // namespace plumb
