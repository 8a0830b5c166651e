// Chat templates: messages to the text that a model was trained to read. A template is a Jinja2 program from
// a model file, so it is untrusted: it runs in an interpreter of our own with limits on steps, bytes, depth
// and time, and renders what Python's jinja2 renders as Hugging Face's transformers sets it up
// (docs/chat-templates.md).
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"

namespace plumb {

struct TemplateLimits {
  int64_t steps = 5'000'000;        // of the interpreter, about one a node
  int64_t bytes = 64 << 20;         // of values alive
  int64_t output_bytes = 16 << 20;  // of the rendered text
  int64_t milliseconds = 500;       // of CPU time
};

inline constexpr int64_t kMaxTemplateBytes = 1 << 20;  // of the source

struct ChatInput {
  Json messages;   // an array of objects
  Json tools;      // an array, or null
  Json variables;  // an object with more variables of the template (chat_template_kwargs), or null
  std::string bos_token = {}, eos_token = {};
  bool add_generation_prompt = false;
  std::time_t now = 0;  // what strftime_now shows, in local time
};

class ChatTemplate {
 public:
  /// Throws Error "template.syntax", "template.limit" or "template.too_large" with line and column.
  static ChatTemplate parse(std::string_view source);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  /// The prompt's text. Throws Error "template.*": "template.raised" is the template's own refusal of the
  /// conversation, "template.limit" names the limit.
  std::string render(const ChatInput& input, const TemplateLimits& limits = {}) const;

 private:
  struct State;
  explicit ChatTemplate(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace plumb
