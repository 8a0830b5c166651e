// What an answer must look like: response_format, json_schema, grammar and tools become grammars, compiled
// once and kept for the requests that ask for the same.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <string>

#include "engine/chat_prompt.h"
#include "engine/scheduler.h"
#include "server/fields.h"
#include "text/grammar.h"
#include "text/tool_calls.h"

namespace plumb::server {

inline constexpr size_t kMaxKeptGrammars = 64;

/// Compiled grammars, the ones used last. Thread-safe.
class Formats {
 public:
  explicit Formats(const Tokenizer& tokenizer)
      : tokenizer_(tokenizer), vocabulary_(std::make_shared<GrammarVocabulary>(tokenizer)) {}

  /// Throws as Grammar::parse.
  GrammarState state(const std::string& gbnf);
  const Tokenizer& tokenizer() const { return tokenizer_; }

 private:
  struct Kept {
    std::string gbnf;
    GrammarState state;
  };
  const Tokenizer& tokenizer_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  std::mutex mutex_;
  std::list<Kept> kept_;
};

/// Reads response_format, json_schema and grammar; at most one of them may be there. True where one is.
bool read_output_format(Fields& fields, Formats& formats, GenerateOptions& options);

/// Which tools an answer may call.
struct ToolFields {
  Json tools = {};  // OpenAI's array, for the template; null: none
  ToolGrammar grammar = {};
};

/// Reads tools, tool_choice and parallel_tool_calls as OpenAI spells them.
ToolFields read_tool_fields(Fields& fields);

struct ReplyFields {
  ToolFields tools = {};
  bool constrained = false;  // by a format of its own
  bool reasoning = true;     // thoughts are told apart, where the model has any
  int thought_tokens = -1;   // of thoughts, at most; -1: no limit
};

/// How a reply to this prompt is to be taken apart; sets the grammar of the tools and the limit of thoughts,
/// and shows control tokens where the parser needs them.
ReplyParser::Options prepare_reply(const ChatPrompt& chat, const std::string& prompt, ReplyFields asked,
                                   Formats& formats, GenerateOptions& options);

}  // namespace plumb::server
