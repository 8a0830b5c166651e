#include "app/chat_screen.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "app/chat_options.h"

namespace plumb {
namespace {

constexpr const char *kGreen = "\x1b[1;32m", *kCyan = "\x1b[1;36m", *kRed = "\x1b[31m", *kDim = "\x1b[2m",
                     *kPlain = "\x1b[0m";

bool has_colors(const std::string& asked, bool terminal) {
  if (asked != "auto") return asked == "on" && terminal;
  const char *none = std::getenv("NO_COLOR"), *term = std::getenv("TERM");
  return terminal && !(none && *none) && term && std::string_view(term) != "dumb";
}

}  // namespace

ChatScreen::ChatScreen(const ChatOptions& options)
    : o_(options),
      interactive_(::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1),
      color_out_(has_colors(options.color, interactive_)),
      color_error_(has_colors(options.color, ::isatty(STDERR_FILENO) == 1)),
      error_terminal_(::isatty(STDERR_FILENO) == 1) {}

bool ChatScreen::timings() const { return o_.timings && (error_terminal_ || o_.is_set("--show-timings")); }

int ChatScreen::columns() const {
  struct winsize size = {};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string ChatScreen::user_prompt(bool first) const {
  const std::string text = first ? terminal_text(o_.prompt_user) : "...> ";
  return color_out_ ? fmt::format("\1{}\1{}\1{}\1", kGreen, text, kPlain) : text;
}

Progress ChatScreen::progress() {
  if (o_.show_progress) return bar_.callback();
  return [](const char*, double) {};
}

void ChatScreen::begin_answer() {
  filter_.reset();
  if (!o_.raw || ::isatty(STDOUT_FILENO) == 1) filter_.emplace();
  last_ = ' ';  // an answer takes a line at least, also an empty one
  bar_.erase();
  if (!interactive_) return;
  const std::string prompt = terminal_text(o_.prompt_assistant);
  print_out(color_out_ ? fmt::format("{}{}{}", kCyan, prompt, kPlain) : prompt);
  flush_out();
}

void ChatScreen::answer(std::string_view text) {
  const std::string shown = filter_ ? filter_->push(text) : std::string(text);
  if (shown.empty()) return;
  last_ = shown.back();
  print_out(shown);
  flush_out();
}

void ChatScreen::end_answer() {
  const std::string rest = filter_ ? filter_->finish() : "";
  print_out(rest);
  if (!rest.empty()) last_ = rest.back();
  if (last_ != '\n') print_out("\n");
  flush_out();
}

void ChatScreen::note(std::string_view text) {
  bar_.erase();
  fmt::print(stderr, "{}\n", text);
  std::fflush(stderr);
}

void ChatScreen::dim_note(std::string_view text) {
  note(color_error_ ? fmt::format("{}{}{}", kDim, text, kPlain) : std::string(text));
}

void ChatScreen::error(const Error& e) {
  const std::string text = fmt::format("plumb: {}", terminal_text(e.what()));
  note(color_error_ ? fmt::format("{}{}{}", kRed, text, kPlain) : text);
}

}  // namespace plumb
