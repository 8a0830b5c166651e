#include "app/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace plumb {

ProgressBar::ProgressBar() : terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressBar::show(const char* what, double share) {
  if (!terminal_) return;
  const auto now = Clock::now();
  if (!running_) running_ = true, start_ = last_ = now;
  if (share >= 1) {
    erase();
    running_ = false;
    return;
  }
  using std::chrono::milliseconds;
  if (now - start_ < milliseconds(300) || (drawn_ && now - last_ < milliseconds(100))) return;
  last_ = now;
  drawn_ = true;
  struct winsize size = {};
  const int columns = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  const std::string detail = detail_(share);
  const int width = std::clamp(columns - 18 - int(detail.size()), 4, 40), full = int(share * width);
  std::string line = fmt::format("{:<8} [{}{}] {:3.0f}% {}", what, std::string(size_t(full), '#'),
                                 std::string(size_t(width - full), '.'), share * 100, detail);
  line.resize(std::min(line.size(), size_t(std::max(1, columns - 3))));  // one line, also with an echoed ^C
  fmt::print(stderr, "\r{}\x1b[K", line);
  std::fflush(stderr);
}

void ProgressBar::erase() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace plumb
