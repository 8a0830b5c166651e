#include "app/chat_repl.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "app/exit_codes.h"
#include "app/terminal_text.h"
#include "base/error.h"
#include "base/file.h"

namespace plumb {
namespace {

// During an answer Ctrl-C ends the answer, never the program.
void end_answer(int) { interrupt_flag() = true; }

void catch_interrupts() {
  struct sigaction action = {};
  action.sa_handler = end_answer;
  ::sigaction(SIGINT, &action, nullptr);
}

std::vector<std::string> names_to_set() {
  std::vector<std::string> names;
  for (const ConfigKey& k : config_keys()) {
    if (k.section == "generation" || k.section == "interface") names.emplace_back(k.key);
  }
  return names;
}

}  // namespace

std::string state_folder() {
  const char *state = std::getenv("XDG_STATE_HOME"), *home = std::getenv("HOME");
  if (state && *state) return std::string(state) + "/plumb";
  return home && *home ? std::string(home) + "/.local/state/plumb" : "";
}

ChatRepl::ChatRepl(ChatOptions& options) : o_(options), screen_(options) {
  session_ = load(o_.model.path());
  set_up();
}

ChatRepl::~ChatRepl() = default;

void ChatRepl::set_up() {
  const std::string folder = state_folder();
  const bool keep = o_.auto_save && (screen_.interactive() || !o_.history_file.empty() || o_.resume);
  log_ = std::make_unique<ConversationLog>(keep && !folder.empty() ? folder + "/chat" : "",
                                           keep ? o_.history_file : "");
  if (screen_.interactive()) {
    std::error_code ignored;
    if (!folder.empty()) std::filesystem::create_directories(folder, ignored);
    editor_ = std::make_unique<LineEditor>(
        [names = names_to_set()](std::string_view line) {
          return complete(line, names, std::getenv("HOME"));
        },
        folder.empty() ? "" : folder + "/input-history", o_.max_entries);
  }
  history_.system = o_.system_text();
  clear();
  if (o_.resume) resume();
  if (!o_.load_history.empty()) load_conversation(o_.load_history);
  if ((o_.is_set("--system-prompt") || o_.is_set("--system-prompt-file")) &&
      history_.system != o_.system_text())
    set_system(o_.system_text());
  catch_interrupts();
}

std::unique_ptr<ChatSession> ChatRepl::load(const std::string& path) {
  auto model = std::make_unique<Model>(path, o_.model.options(screen_.progress()));
  const int64_t bytes = model->file().file_bytes();
  screen_.bar().explain([bytes](double share) {
    return fmt::format("{} of {}", readable_bytes(int64_t(share * double(bytes))), readable_bytes(bytes));
  });
  auto session = std::make_unique<ChatSession>(std::move(model), o_.session(&interrupt_flag()));
  screen_.bar().erase();
  return session;
}

void ChatRepl::greet() {
  if (!screen_.interactive()) return;
  const std::string name = std::filesystem::path(session_->model().file().path()).filename().string();
  screen_.dim_note(fmt::format("{}\ncontext {}, {} threads; /help lists all", terminal_text(name),
                               session_->n_ctx(), session_->model().pool().threads()));
  if (!history_.messages.empty()) return;
  if (const auto last = log_->last()) {
    screen_.dim_note(fmt::format("/load goes on with the conversation of {} ({} messages).",
                                 format_time(last->history.created), last->history.messages.size()));
  }
}

void ChatRepl::failed(const Error& e) {
  screen_.error(e);
  status_ = exit_code(e.code());
}

// Ctrl-C clears what was typed; where nothing was, twice in a row, it leaves.
bool ChatRepl::interrupted_at_prompt(bool nothing_typed) {
  interrupt_flag() = false;
  print_out("^C\n");
  flush_out();
  if (nothing_typed && ++interrupts_ >= 2) return true;
  interrupts_ = 1;
  screen_.dim_note("Ctrl-C again, or Ctrl-D, leaves");
  return false;
}

LineEditor::Result ChatRepl::read_plain_line(std::string& line) {
  while (true) {
    if (const size_t end = line_buffer_.find('\n'); end != std::string::npos) {
      line = line_buffer_.substr(0, end);
      line_buffer_.erase(0, end + 1);
      if (line.ends_with('\r')) line.pop_back();
      return LineEditor::Result::line;
    }
    char buffer[1 << 16];
    const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR && !interrupt_flag()) continue;
    if (n < 0 && errno == EINTR) throw Error({.code = "run.cancelled", .found = "an interrupt"});
    if (n > 0) {
      line_buffer_.append(buffer, size_t(n));
      continue;
    }
    line = std::exchange(line_buffer_, {});
    return line.empty() ? LineEditor::Result::end : LineEditor::Result::line;
  }
}

LineEditor::Result ChatRepl::read_line(bool first, std::string& line) {
  return editor_ ? editor_->read(screen_.user_prompt(first), o_.multiline, line) : read_plain_line(line);
}

ChatRepl::Read ChatRepl::read(InputLines& input) {
  std::string line;
  while (true) {
    switch (read_line(input.empty(), line)) {
      case LineEditor::Result::interrupted:
        return interrupted_at_prompt(input.empty() && !(editor_ && editor_->typed())) ? Read::end
                                                                                      : Read::nothing;
      case LineEditor::Result::end:
        if (editor_) print_out("\n");
        if (!line.empty()) input.push(line);
        return input.empty() ? Read::end : Read::message;
      case LineEditor::Result::line:
        break;
    }
    interrupts_ = 0;
    // A command is one line also where messages are many.
    const bool command = input.empty() && o_.multiline && line.starts_with('/') && !line.starts_with("//");
    if (input.push(line) || command) return Read::message;
  }
}

// False: leave.
bool ChatRepl::take(const InputLines& input) {
  if (editor_ && !input.text().empty()) editor_->remember(input.text());
  const bool literal = input.literal();
  if (!literal && input.text().find_first_not_of(" \t\n") == std::string::npos) return true;
  if (!literal) {
    if (const auto slash = parse_slash(input.text())) return command(*slash);
  }
  send(literal ? input.text() : message_of(input.text()));
  return !o_.single_turn;
}

void ChatRepl::run() {
  greet();
  bool more = true;
  const auto guarded = [&](const auto& call) {
    try {
      more = call();
    } catch (const Error& e) {
      if (e.code().starts_with("output.") || e.code() == "run.cancelled") throw;
      failed(e);
      more = !o_.single_turn;
    }
  };
  if (const std::string first = o_.first_message(); !first.empty()) {
    guarded([&] {
      if (editor_)
        print_out(screen_.user_prompt(true).empty() ? "" : terminal_text(o_.prompt_user + first) + "\n");
      send(first);
      return !o_.single_turn;
    });
  }
  while (more) {
    InputLines input(o_.multiline);
    const Read what = read(input);
    if (what == Read::end) break;
    if (what == Read::message) guarded([&] { return take(input); });
  }
  if (!o_.save_history.empty()) save(o_.save_history);
  if (status_ != 0 && (!screen_.interactive() || o_.single_turn)) throw ExitStatus{status_};
}

}  // namespace plumb
