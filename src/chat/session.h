// A model that talks: the conversation becomes tokens, those that the cache already holds are not computed
// again, and what no longer fits is left out from the front, and said.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "chat/history.h"
#include "engine/chat_prompt.h"
#include "engine/generate.h"

namespace plumb {

struct SessionOptions {
  std::string template_source = {};  // empty: the model's own
  Json variables = {};               // of the template
  RunnerOptions runner = {};
};

struct Reply {
  std::string text;
  Generated generated;
  int64_t prompt_tokens = 0, cached_tokens = 0;  // of them from the cache
  size_t left_out = 0;                           // messages from the front, in all
  size_t newly_left_out = 0;                     // of them because of this answer
};

class ChatSession {
 public:
  /// Throws whatever is wrong with the model, its template or the memory that it needs.
  ChatSession(std::unique_ptr<Model> model, SessionOptions options);

  /// Answers the conversation, whose last message is the user's. `begin` hears how many tokens of the prompt
  /// must be computed. Throws Error "chat.too_long" where the last message alone does not fit, and those of
  /// templates and runners; a cancelled answer is no error.
  Reply answer(const History& history, const GenerateOptions& options,
               const std::function<void(int64_t tokens)>& begin,
               const std::function<void(std::string_view)>& text);

  /// What answer() would give the model.
  std::string prompt(const History& history) const;

  /// Another conversation: no message is left out any more.
  void restart() { first_ = 0; }
  /// Runs elsewhere; the old way stays if that is refused.
  void run_on(const RunnerOptions& options);

  const Model& model() const { return *model_; }
  const ChatPrompt& templates() const { return prompt_; }
  int64_t context_used() const { return runner_->length(); }
  int64_t n_ctx() const { return runner_->n_ctx(); }

 private:
  Conversation conversation(const History& history, size_t first) const;
  std::vector<int> fitting_tokens(const History& history, const GenerateOptions& options);
  int64_t reuse(const std::vector<int>& ids);

  std::unique_ptr<Model> model_;
  SessionOptions options_;
  ChatPrompt prompt_;
  std::unique_ptr<Runner> runner_;
  std::vector<int> cached_;  // what the runner holds
  size_t first_ = 0;         // messages before it are left out
};

/// 16 hexadecimal digits of what the file says of itself: its keys, and its tensors' names, shapes, formats
/// and places. Two files of the same ones hold the same model unless someone changed numbers in place.
std::string fingerprint(const Gguf& file);

/// A template by name, or as its own text. Throws Error "usage.template" for another word.
std::string template_named(const std::string& text);

}  // namespace plumb
