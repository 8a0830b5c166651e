#include "app/terminal_report.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "app/flags.h"

namespace plumb {
namespace {

constexpr std::string_view kBad = "\x1b[1;31m", kGood = "\x1b[32m", kMild = "\x1b[33m", kPlain = "\x1b[0m";

std::string_view colour_of(std::string_view line) {
  const std::string_view word = line.substr(0, line.find(' '));
  for (std::string_view w : {"DIVERGES", "VIOLATED", "CAUSE", "UNUSABLE", "TOKENS", "DIFFERS"}) {
    if (word == w) return kBad;
  }
  for (std::string_view w : {"SAME", "holds"}) {
    if (word == w) return kGood;
  }
  for (std::string_view w : {"GAUGE", "BY", "note", "UNKNOWN"}) {
    if (word == w) return kMild;
  }
  return {};
}

// One line, cut between words; a word longer than the room is cut anywhere.
void wrap(std::string_view line, size_t indent, size_t columns, std::string& out) {
  const size_t hang = columns > indent + 30 ? indent : 2;
  size_t room = columns;
  while (line.size() > room) {
    size_t cut = line.rfind(' ', room);
    if (cut == std::string_view::npos || cut < room / 2) cut = room;
    out.append(line.substr(0, cut)).append("\n").append(hang, ' ');
    line.remove_prefix(cut);
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    room = columns - hang;
  }
  out.append(line).append("\n");
}

}  // namespace

std::string fitted(std::string_view report, size_t indent, size_t columns, bool colour) {
  columns = std::max<size_t>(columns, 20);
  std::string out;
  while (!report.empty()) {
    const size_t end = std::min(report.find('\n'), report.size());
    std::string text;
    wrap(report.substr(0, end), indent, columns, text);
    const std::string_view ink = colour ? colour_of(text) : std::string_view();
    if (!ink.empty()) {
      const size_t word = text.find(' ');
      text.insert(std::min(word, text.size()), kPlain);
      text.insert(0, ink);
    }
    out += text;
    report.remove_prefix(std::min(end + 1, report.size()));
  }
  return out;
}

void print_report(std::string_view report, size_t indent) {
  struct winsize size = {};
  if (::isatty(STDOUT_FILENO) == 0) return print_out(report);
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  const char* off = std::getenv("NO_COLOR");
  print_out(fitted(report, indent, known ? size.ws_col : 80, !off || !*off));
}

}  // namespace plumb
