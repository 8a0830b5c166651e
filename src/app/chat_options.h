// The flags of `plumb chat`.
#pragma once

#include <string>

#include "app/config.h"
#include "app/flags.h"
#include "app/sampler_flags.h"
#include "chat/session.h"

namespace plumb {

struct ChatOptions {
  CLI::App* command = nullptr;
  ModelFlags model;
  Config config;
  SamplerFlags sampler;
  GenerateOptions generate;
  std::string chat_template, template_file, template_kwargs;
  std::string system, system_file, prompt, prompt_file;
  std::string prompt_user = "You> ", prompt_assistant = "Assistant> ", color = "auto";
  std::string history_file, load_history, save_history;
  int max_entries = 1000;
  bool single_turn = false, multiline = false, timings = true, show_progress = true;
  bool auto_save = true, resume = false, raw = false;

  void add(CLI::App* command);

  bool is_set(const std::string& flag) const { return command->count(flag) > 0; }
  /// Text of --system-prompt or its file; of --prompt or its file.
  std::string system_text() const;
  std::string first_message() const;
  /// Template and its variables; where the model runs. Throws Error "usage.*".
  SessionOptions session(std::atomic<bool>* cancel) const;
};

}  // namespace plumb
