// A conversation becomes tokens: the model's chat template, its special tokens and its tokenizer in one
// place, for the terminal, the server and whoever else talks to a model.
#pragma once

#include <ctime>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/model.h"
#include "text/chat_template.h"

namespace plumb {

struct Conversation {
  Json messages =
      {};           // an array of objects as OpenAI spells them; content is a text or an array of text parts
  Json tools = {};  // an array, or null
  Json variables = {};  // an object with more variables of the template, or null
  bool add_generation_prompt = true;
  std::time_t now = 0;  // what the template sees as the time
};

class ChatPrompt {
 public:
  /// Takes `source` for the model's own template unless it is empty. Throws Error "chat.no_template" where
  /// there is neither, and those of ChatTemplate::parse. The model must outlive it.
  explicit ChatPrompt(const Model& model, std::string source = {});

  const std::string& source() const { return source_; }

  /// The prompt as the template writes it. Throws Error "chat.message" with the JSON pointer of what is no
  /// text, and those of ChatTemplate::render.
  std::string text(const Conversation& conversation) const;

  /// Its ids. BOS stands at the beginning once where the tokenizer adds it, whether or not the template
  /// writes it; nothing follows what the template wrote.
  std::vector<int> tokens(const Conversation& conversation) const { return encode(text(conversation)); }
  std::vector<int> encode(const std::string& text) const;

 private:
  std::string render(const Conversation& conversation, const Json& messages, const Json& tools) const;

  const Model& model_;
  std::string source_;
  ChatTemplate template_;
};

/// As templates expect messages: parts of content joined by line ends, and arguments of tool calls parsed
/// into objects, as transformers passes them. Throws Error "chat.message".
Json template_messages(const Json& messages);

/// The text of a special token, as stored in the file; empty where the model has none (id -1).
std::string token_text(const Tokenizer& tokenizer, int id);

}  // namespace plumb
