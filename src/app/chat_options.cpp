#include "app/chat_options.h"

#include "base/error.h"
#include "base/file.h"
#include "base/limits.h"

namespace plumb {
namespace {

constexpr int64_t kMaxPromptBytes = 64 << 20;

}  // namespace

void ChatOptions::add(CLI::App* c) {
  command = c;
  model.add(c);
  config.add(c);
  flag(c, "-p,--prompt", prompt, "First message");
  flag(c, "-f,--file", prompt_file, "First message from a file")->excludes("--prompt");
  flag(c, "--system-prompt", system, "System prompt (-sys)");
  flag(c, "--system-prompt-file", system_file, "System prompt from a file (-sysf)")
      ->excludes("--system-prompt");
  flag(c, "--single-turn", single_turn, "Leave after one answer (-st)");
  flag(c, "--multiline-input", multiline, "Enter begins a new line, Ctrl-D sends (-mli)");
  flag(c, "--chat-template", chat_template, "Template's text, or chatml, instead of the model's own");
  flag(c, "--chat-template-file", template_file, "File with a template instead")->excludes("--chat-template");
  flag(c, "--chat-template-kwargs", template_kwargs, "JSON object with more variables of the template");
  flag(c, "-n,--predict,--n-predict,--max-tokens", generate.n_predict,
       "Tokens of an answer; -1: until the model ends")
      ->check(CLI::Range(-1, 1 << 30))
      ->capture_default_str();
  flag(c, "-r,--reverse-prompt", generate.stops, "Stop where this text appears; may be repeated")
      ->allow_extra_args(false);
  sampler.add(c);
  flag(c, "--resume", resume, "Go on with the last conversation");
  flag(c, "--load-history", load_history, "Go on with a saved conversation");
  flag(c, "--save-history", save_history, "Write the conversation as JSON when leaving");
  flag(c, "--auto-save,!--no-auto-save", auto_save, "Keep conversations where --resume finds them (on)");
  flag(c, "--history-file", history_file, "Keep them in this journal");
  flag(c, "--history-max-entries", max_entries, "Messages that the arrow keys bring back")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  flag(c, "--prompt-user", prompt_user, "What stands before a message")->capture_default_str();
  flag(c, "--prompt-assistant", prompt_assistant, "What stands before an answer")->capture_default_str();
  flag(c, "--color", color, "on, off, or auto: on terminals, unless NO_COLOR is set (-co)")
      ->check(CLI::IsMember({"on", "off", "auto"}))
      ->capture_default_str();
  flag(c, "--show-timings,!--no-show-timings", timings,
       "A line of figures after each answer (on a terminal: on)");
  flag(c, "--show-progress,!--no-show-progress", show_progress, "Bars for loading and long prompts (on)");
  flag(c, "--raw", raw, "Escape sequences of the answers as they are, where standard output is no terminal");
}

std::string ChatOptions::system_text() const {
  return system_file.empty() ? system : read_file(system_file, kMaxPromptBytes);
}

std::string ChatOptions::first_message() const {
  return prompt_file.empty() ? prompt : read_file(prompt_file, kMaxPromptBytes);
}

SessionOptions ChatOptions::session(std::atomic<bool>* cancel) const {
  SessionOptions out;
  out.template_source =
      template_file.empty() ? template_named(chat_template) : read_file(template_file, kMaxTemplateBytes);
  if (!template_kwargs.empty()) out.variables = parse_json(template_kwargs, "--chat-template-kwargs");
  if (!out.variables.is_null() && !out.variables.object()) {
    throw Error({.code = "usage.kwargs",
                 .expected = "a JSON object",
                 .found = "another value",
                 .where = {.key = "--chat-template-kwargs"}});
  }
  out.runner = model.runner(cancel);
  return out;
}

}  // namespace plumb
