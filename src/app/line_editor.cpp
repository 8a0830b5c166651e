#include "app/line_editor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>

#include "app/flags.h"
#include "app/terminal_text.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/terminal_filter.h"
#include "base/utf8.h"

namespace plumb {
namespace {

constexpr char kInvisible = '\1';      // around what a prompt has of no width
constexpr size_t kMaxPaste = 4 << 20;  // characters
constexpr int64_t kMaxHistoryBytes = 64 << 20;

volatile std::sig_atomic_t resized = 0;

void on_resize(int) { resized = 1; }

// libedit reads and measures characters as the locale says: UTF-8 wherever the environment allows for it.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::string_view(::nl_langinfo(CODESET)) != "UTF-8") std::setlocale(LC_CTYPE, "C.UTF-8");
}

int columns() {
  struct winsize size = {};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Below the line, in as many columns as fit.
void list(const std::vector<std::string>& candidates) {
  constexpr size_t kMost = 60;
  int64_t width = 0;
  for (const std::string& c : candidates) width = std::max(width, display_width(terminal_text(c)) + 2);
  const int64_t per_line = std::max<int64_t>(1, columns() / width);
  std::fputs("\r\n", stdout);
  for (size_t i = 0; i < std::min(candidates.size(), kMost); ++i) {
    const bool last = int64_t(i + 1) % per_line == 0 || i + 1 == candidates.size();
    fmt::print("{}{}", padded(terminal_text(candidates[i]), last ? 0 : width), last ? "\r\n" : "");
  }
  if (candidates.size() > kMost) fmt::print("\r\n... and {} more\r\n", candidates.size() - kMost);
}

}  // namespace

struct LineEditor::State {
  State(Complete complete_, std::string file_, int most_);
  ~State() {
    ::el_end(el);
    ::history_end(history);
  }

  void bind();
  void load();
  unsigned char on_complete();
  unsigned char on_paste();
  unsigned char on_end();
  int get(wchar_t* c);

  static State& of(EditLine* e) {
    void* data = nullptr;
    ::el_get(e, EL_CLIENTDATA, &data);
    return *static_cast<State*>(data);
  }

  Complete complete;
  std::string file, prompt;
  int most;
  EditLine* el = nullptr;
  History* history = nullptr;
  bool ended = false, multiline = false, typed = false;
};

LineEditor::State::State(Complete complete_, std::string file_, int most_)
    : complete(std::move(complete_)), file(std::move(file_)), most(most_) {
  use_utf8();
  el = ::el_init("plumb", stdin, stdout, stderr);
  history = ::history_init();
  if (!el || !history) throw Error({.code = "usage.terminal", .expected = "a terminal that libedit knows"});
  HistEvent event;
  ::history(history, &event, H_SETSIZE, most);
  ::history(history, &event, H_SETUNIQUE, 1);
  ::el_set(el, EL_CLIENTDATA, this);
  ::el_set(el, EL_PROMPT_ESC, +[](EditLine* e) { return of(e).prompt.data(); }, kInvisible);
  ::el_set(el, EL_HIST, ::history, history);
  ::el_set(el, EL_SIGNAL, 0);
  ::el_set(el, EL_GETCFN, +[](EditLine* e, wchar_t* c) { return of(e).get(c); });
  bind();
  load();
  struct sigaction action = {};
  action.sa_handler = on_resize;
  ::sigaction(SIGWINCH, &action, nullptr);
}

void LineEditor::State::bind() {
  ::el_set(el, EL_EDITOR, "emacs");
  ::el_source(el, nullptr);  // ~/.editrc, as in other programs
  ::el_set(
      el, EL_ADDFN, "plumb-complete", "Complete a command or file name",
      +[](EditLine* e, int) { return of(e).on_complete(); });
  ::el_set(
      el, EL_ADDFN, "plumb-paste", "Take pasted text", +[](EditLine* e, int) { return of(e).on_paste(); });
  ::el_set(el, EL_ADDFN, "plumb-end", "End of input", +[](EditLine* e, int) { return of(e).on_end(); });
  constexpr const char* kKeys[][2] = {
      {"\t", "plumb-complete"},
      {"\\e[200~", "plumb-paste"},
      {"^D", "plumb-end"},
      {"^R", "em-inc-search-prev"},
      {"\\e[1;5D", "ed-prev-word"},
      {"\\e[1;5C", "em-next-word"},
      {"\\e[H", "ed-move-to-beg"},
      {"\\e[F", "ed-move-to-end"},
      {"\\e[3~", "ed-delete-next-char"},
      {"^W", "ed-delete-prev-word"},
      {"\\e[5~", "ed-search-prev-history"},
      {"\\e[6~", "ed-search-next-history"},
  };
  for (const auto& [key, function] : kKeys) ::el_set(el, EL_BIND, key, function, nullptr);
}

// A line that a kill cut in two is no JSON and is left out.
void LineEditor::State::load() {
  if (file.empty()) return;
  std::string text;
  try {
    text = read_file(file, kMaxHistoryBytes);
  } catch (const Error&) {  // none yet
    return;
  }
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    try {
      const Json value = parse_json(std::string_view(text).substr(at, end - at), file);
      if (value.text()) lines.push_back(*value.text());
    } catch (const Error&) {
    }
    at = end + 1;
  }
  const bool shorten = lines.size() > size_t(most) * 2;
  if (lines.size() > size_t(most)) lines.erase(lines.begin(), lines.end() - most);
  HistEvent event;
  std::string kept;
  for (const std::string& line : lines) {
    ::history(history, &event, H_ENTER, line.c_str());
    kept += dump(Json(line), {.ascii = true}) + "\n";
  }
  try {
    if (shorten) atomic_replace(file, kept);
  } catch (const Error&) {  // a full disk: next time
  }
}

unsigned char LineEditor::State::on_complete() {
  const LineInfo* info = ::el_line(el);
  const std::string line(info->buffer, info->cursor);
  const Completions found = complete(line);
  if (found.candidates.empty()) return CC_REFRESH_BEEP;
  std::string text = common_prefix(found.candidates);
  if (found.candidates.size() == 1 && !text.ends_with('/')) text += ' ';
  const std::string begun = line.substr(found.begin);
  // Not half of a character, nor anything that a terminal would obey.
  if (text.size() > begun.size() && text == terminal_text(text)) {
    if (::el_insertstr(el, text.substr(begun.size()).c_str()) == 0) return CC_REFRESH;
  }
  if (found.candidates.size() == 1) return CC_REFRESH_BEEP;
  list(found.candidates);
  return CC_REDISPLAY;
}

// What a terminal sends between ESC[200~ and ESC[201~. Line ends stay line ends: nothing pasted sends itself.
unsigned char LineEditor::State::on_paste() {
  constexpr std::wstring_view kEnd = L"\x1b[201~";
  std::wstring text;
  wchar_t c = 0;
  while (!text.ends_with(kEnd) && text.size() < kMaxPaste && ::el_wgetc(el, &c) == 1) text += c;
  if (text.ends_with(kEnd)) text.resize(text.size() - kEnd.size());
  std::string clean;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == L'\r') {
      if (i + 1 == text.size() || text[i + 1] != L'\n') clean += '\n';
    } else if (text[i] == L'\n' || text[i] == L'\t' ||
               (text[i] >= 0x20 && !(text[i] >= 0x7F && text[i] < 0xA0))) {
      append_utf8(clean, uint32_t(text[i]));
    }
  }
  while (clean.ends_with('\n')) clean.pop_back();
  return ::el_insertstr(el, clean.c_str()) == 0 || clean.empty() ? CC_REFRESH : CC_REFRESH_BEEP;
}

unsigned char LineEditor::State::on_end() {
  const LineInfo* info = ::el_line(el);
  if (info->buffer == info->lastchar || multiline) {
    ended = true;
    return CC_EOF;
  }
  if (info->cursor == info->lastchar) return CC_REFRESH_BEEP;
  ::el_cursor(el, 1);  // the character under the cursor goes
  ::el_deletestr(el, 1);
  return CC_REFRESH;
}

// A character from the keyboard; -1 when Ctrl-C came, 0 at the end. A signal may come between a look at its
// flag and the wait, or to another thread: no wait is long.
int LineEditor::State::get(wchar_t* c) {
  constexpr int kMilliseconds = 100;
  std::string bytes;
  while (true) {
    if (interrupt_flag()) return -1;
    if (resized) {
      resized = 0;
      ::el_resize(el);
      ::el_set(el, EL_REFRESH);
    }
    struct pollfd keyboard = {STDIN_FILENO, POLLIN, 0};
    if (::poll(&keyboard, 1, kMilliseconds) <= 0) continue;
    char byte = 0;
    const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) {
      ended = true;
      return 0;
    }
    bytes += byte;
    const Utf8Step step = utf8_step(bytes, 0);
    if (step.state == Utf8Step::State::incomplete) continue;
    *c = wchar_t(step.code);
    typed = true;
    return 1;
  }
}

LineEditor::LineEditor(Complete complete, std::string history_file, int max_entries)
    : state_(std::make_unique<State>(std::move(complete), std::move(history_file), max_entries)) {}

LineEditor::~LineEditor() = default;

bool LineEditor::typed() const { return state_->typed; }

LineEditor::Result LineEditor::read(const std::string& prompt, bool multiline, std::string& line) {
  State& s = *state_;
  s.prompt = prompt;
  s.ended = false;
  s.multiline = multiline, s.typed = false;
  std::fputs("\x1b[?2004h", stdout);  // pasted text arrives marked as such
  std::fflush(stdout);
  ::el_set(s.el, EL_PREP_TERM, 1);  // before the prompt: whoever sees it may type Ctrl-D
  int count = 0;
  const char* text = ::el_gets(s.el, &count);
  line = text && count > 0 ? std::string(text, size_t(count)) : std::string();
  if (line.empty() && s.ended && multiline) {  // what stands in the line counts
    const LineInfo* info = ::el_line(s.el);
    line.assign(info->buffer, info->lastchar);
  }
  std::fputs("\x1b[?2004l", stdout);
  std::fflush(stdout);
  if (interrupt_flag()) return Result::interrupted;
  if (s.ended || !text) return Result::end;
  if (line.ends_with('\n')) line.pop_back();
  return Result::line;
}

void LineEditor::remember(const std::string& message) {
  State& s = *state_;
  HistEvent event;
  ::history(s.history, &event, H_ENTER, message.c_str());
  if (s.file.empty()) return;
  const int fd = ::open(s.file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return;
  const std::string record = "\n" + dump(Json(message), {.ascii = true}) + "\n";  // apart from a torn line
  [[maybe_unused]] const ssize_t written = ::write(fd, record.data(), record.size());
  ::close(fd);
}

}  // namespace plumb
