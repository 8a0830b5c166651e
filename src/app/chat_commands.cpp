// The commands of a chat that change the conversation or the model.
#include <fmt/format.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>

#include "app/chat_repl.h"
#include "app/terminal_text.h"
#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"

namespace plumb {
namespace {

constexpr int64_t kMaxReadBytes = 16 << 20;

std::string with_home(const std::string& path) { return expand_home(path, std::getenv("HOME")); }

}  // namespace

bool ChatRepl::command(const Slash& slash) {
  const std::string& argument = slash.argument;
  switch (slash.id) {
    case SlashId::exit:
      return false;
    case SlashId::help:
      help();
      break;
    case SlashId::clear:
      clear();
      screen_.note("The conversation is forgotten.");
      break;
    case SlashId::regen:
      regenerate();
      break;
    case SlashId::system:
      set_system(argument);
      break;
    case SlashId::read:
      read_text(with_home(argument));
      break;
    case SlashId::save:
      save(with_home(argument));
      break;
    case SlashId::load:
      argument.empty() ? resume() : load_conversation(with_home(argument));
      break;
    case SlashId::model:
      change_model(with_home(argument));
      break;
    case SlashId::backend:
      change_backend(argument);
      break;
    case SlashId::set:
      set(argument);
      break;
    case SlashId::show:
      show(argument);
      break;
    case SlashId::stats:
      show_stats();
      break;
    case SlashId::config:
      argument == "save" ? save_config() : show_settings(false);
      break;
  }
  return true;
}

void ChatRepl::help() {
  const bool narrow = screen_.columns() < 72;
  for (const SlashCommand& c : slash_commands()) {
    const std::string usage = fmt::format("{} {}", c.name, c.argument);
    screen_.note(narrow ? fmt::format("{}\n  {}", usage, c.help) : fmt::format("{:<39} {}", usage, c.help));
  }
  screen_.note(
      "A backslash at the end continues a line.\n"
      "\"\"\" opens and closes a block; // sends a /.\n"
      "Ctrl-C stops an answer, Ctrl-D leaves.\n"
      "Ctrl-R searches, Tab completes.");
}

void ChatRepl::clear() {
  history_.messages.clear();
  history_.created = std::time(nullptr);
  history_.model = std::filesystem::path(session_->model().file().path()).filename().string();
  history_.fingerprint = fingerprint(session_->model().file());
  session_->restart();
  last_.reset();
  log_->start(history_);
}

void ChatRepl::regenerate() {
  size_t replaced = 0;
  std::optional<ChatMessage> old;
  if (!history_.messages.empty() && history_.messages.back().role == "assistant") {
    old = history_.messages.back();
    history_.messages.pop_back();
    replaced = 1;
  }
  if (history_.messages.empty() || history_.messages.back().role != "user") {
    if (old) history_.messages.push_back(*old);
    throw Error({.code = "usage.regen", .expected = "a message to answer again", .found = "none"});
  }
  ++again_;
  try {
    answer(replaced);
  } catch (...) {
    if (old) history_.messages.push_back(*old);
    throw;
  }
}

void ChatRepl::set_system(const std::string& text) {
  if (text.empty()) {
    screen_.note(history_.system.empty() ? "There is no system prompt." : terminal_text(history_.system));
    return;
  }
  history_.system = text == "-" ? "" : text;
  log_->system(history_.system);
  screen_.note(history_.system.empty() ? "The system prompt is gone." : "The system prompt is set.");
}

void ChatRepl::read_text(const std::string& path) {
  const std::string text = read_file(path, kMaxReadBytes);
  if (!is_valid_utf8(text) || text.find('\0') != std::string::npos) {
    throw Error({.code = "usage.text",
                 .expected = "a text file in UTF-8",
                 .found = "other bytes",
                 .where = {.file = path}});
  }
  read_before_ += text;
  if (!read_before_.empty() && read_before_.back() != '\n') read_before_ += '\n';
  screen_.note(fmt::format("{} bytes of {} go before the next message.", text.size(), terminal_text(path)));
}

void ChatRepl::save(const std::string& path) {
  Json sampling;
  for (const ConfigKey& k : config_keys()) {
    if (k.section != "generation") continue;
    const CLI::Option* option = o_.command->get_option_no_throw(std::string(k.flag));
    if (!option) continue;
    sampling.set(k.key, option->count() > 0 ? option->results().front() : option->get_default_str());
  }
  History out = history_;
  out.sampling = sampling;
  atomic_replace(path, to_json(out));
  screen_.note(fmt::format("{} messages are in {}.", out.messages.size(), terminal_text(path)));
}

// The end of what was said, so that one knows where one is.
void ChatRepl::take_over(History history, const std::string& from) {
  const std::string own = fingerprint(session_->model().file());
  if (!history.fingerprint.empty() && history.fingerprint != own) {
    screen_.note(fmt::format("warning: it was held with another model, {} ({})", terminal_text(history.model),
                             terminal_text(history.fingerprint)));
  }
  history_ = std::move(history);
  history_.fingerprint = own;
  history_.model = std::filesystem::path(session_->model().file().path()).filename().string();
  if (history_.created < 0) history_.created = std::time(nullptr);
  session_->restart();
  last_.reset();
  again_ = 0;
  screen_.note(fmt::format("{} messages of {}.", history_.messages.size(), terminal_text(from)));
  if (!screen_.interactive()) return;
  const size_t shown = std::min<size_t>(2, history_.messages.size());
  for (const ChatMessage& m : std::span(history_.messages).last(shown)) {
    const bool user = m.role == "user";
    screen_.dim_note(terminal_text((user ? o_.prompt_user : o_.prompt_assistant) + m.content));
  }
}

void ChatRepl::load_conversation(const std::string& path) {
  take_over(load_history(path), path);
  log_->start(history_);
}

void ChatRepl::resume() {
  const auto found = log_->last();
  if (!found) {
    throw Error({.code = "usage.resume",
                 .expected = "a conversation that was kept",
                 .found = "none",
                 .remedy = "/load FILE reads a saved one"});
  }
  if (found->torn_bytes > 0) {
    screen_.note(
        fmt::format("The last record of {} was not written to its end: {} bytes are left out, and kept in "
                    "{}.torn.",
                    found->path, found->torn_bytes, found->path));
  }
  take_over(found->history, found->path);
  log_->resume(*found);
}

void ChatRepl::change_model(const std::string& path) {
  if (path.empty()) {
    show("model");
    return;
  }
  auto session = load(path);  // the old one stays if this is refused
  session_ = std::move(session);
  o_.model.model = path;
  changed_[&config_keys().front()] = std::filesystem::absolute(path).string();
  last_.reset();
  history_.model = std::filesystem::path(path).filename().string();
  history_.fingerprint = fingerprint(session_->model().file());
  screen_.note(
      fmt::format("{} answers from now on, context {}.", terminal_text(history_.model), session_->n_ctx()));
}

void ChatRepl::change_backend(const std::string& type) {
  if (type.empty()) {
    screen_.note(o_.model.backend);
    return;
  }
  ModelFlags flags = o_.model;
  flags.backend = type;
  session_->run_on(flags.runner(&interrupt_flag()));
  screen_.bar().erase();
  o_.model = flags;
  for (const ConfigKey& k : config_keys()) {
    if (k.flag == "--backend") changed_[&k] = type;
  }
  screen_.note(fmt::format("The model runs on {} from now on.", type));
}

}  // namespace plumb
