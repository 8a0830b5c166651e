// Calls of tools in a model's reply: how the families of chat templates write them, grammars that make a
// model write them, and the parser that takes a streamed reply apart into reasoning, content and calls.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/tokenizer.h"

namespace plumb {

enum class ToolStyle {
  none,
  hermes,   // <tool_call>{"name": ..., "arguments": {...}}</tool_call>: SmolLM2, Qwen2.5, Qwen3, Hermes
  llama3,   // {"name": ..., "parameters": {...}}, maybe behind <|python_tag|>
  mistral,  // [TOOL_CALLS][{"name": ..., "arguments": {...}}]
};

const char* name(ToolStyle style);

/// The way of the template, from the marks in its text.
ToolStyle tool_style(std::string_view chat_template);

/// Whether the template's models think between <think> and </think>.
bool writes_reasoning(std::string_view chat_template);

struct Tool {
  std::string name;
  Json parameters;      // a JSON schema; null: any object
  bool strict = false;  // arguments must be enforced: an unsupported schema is an error
};

/// Of OpenAI's "tools". Throws Error "tools.value" with the place as a JSON pointer.
std::vector<Tool> read_tools(const Json& tools);

struct ToolGrammar {
  ToolStyle style = ToolStyle::none;
  std::vector<Tool> tools = {};
  bool required = false;    // a call must be made; else text may come before it or instead
  std::string named = {};   // this tool alone, required
  bool parallel = true;     // several calls in a reply
  bool reasoning = false;   // <think>...</think> may come first
  bool in_thought = false;  // the prompt ends behind <think>
};

/// GBNF for replies. Without `strict`, a tool whose schema we cannot enforce may get any object. Throws Error
/// "tools.value" for a tool that does not exist or a style without calls, and as json_schema_grammar.
std::string tool_grammar(const ToolGrammar& options, const Tokenizer* tokenizer);

struct ToolCall {
  std::string id, name, arguments;  // arguments: the text of a JSON object
  Json json() const;                // {"id":..., "type":"function", "function":{"name":..., "arguments":...}}
};

/// A piece of a reply, in order.
struct ReplyPart {
  enum class Kind { reasoning, content, call };
  Kind kind = Kind::content;
  std::string text = {};
  ToolCall call = {};
};

/// Takes a reply apart as it streams. The text must show control tokens (Detokenizer with `special`), without
/// the one that ends the reply. What may become a mark or a call is held back; what looks like a call and is
/// none is content.
class ReplyParser {
 public:
  struct Options {
    ToolStyle style = ToolStyle::none;
    bool reasoning = false;   // split <think>...</think>
    bool in_thought = false;  // the reply begins inside one
    uint64_t id_seed = 0;     // ids of calls follow from it
  };

  explicit ReplyParser(const Options& options);

  std::vector<ReplyPart> push(std::string_view text);
  std::vector<ReplyPart> finish();
  int calls() const { return calls_; }

 private:
  enum class State { start, thought, text, call, closing };

  bool step(std::vector<ReplyPart>& out, bool last);
  bool start(bool last);
  bool until_mark(std::vector<ReplyPart>& out, std::string_view mark, ReplyPart::Kind kind, State next,
                  bool last);
  bool take_call(std::vector<ReplyPart>& out, bool last);
  bool close_call(bool last);
  void emit(std::vector<ReplyPart>& out, ReplyPart::Kind kind, std::string_view text);
  bool add_call(std::vector<ReplyPart>& out, const Json& call);
  std::string_view mark() const;
  std::string new_id();

  Options options_;
  State state_;
  std::string held_;
  std::string opening_;  // the mark that began the call being read
  bool fresh_ = true;    // nothing but blanks of content so far
  bool trim_ = false;    // blanks before what comes next are not content
  int calls_ = 0;
};

}  // namespace plumb
