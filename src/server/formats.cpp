#include "server/formats.h"

#include <algorithm>
#include <random>

#include "base/error.h"
#include "text/json_schema.h"

namespace plumb::server {

GrammarState Formats::state(const std::string& gbnf) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& k) { return k.gbnf == gbnf; });
    if (it != kept_.end()) {
      kept_.splice(kept_.begin(), kept_, it);
      return kept_.front().state;
    }
  }
  GrammarState state(Grammar::parse(gbnf, &tokenizer_), vocabulary_);
  const std::lock_guard lock(mutex_);
  kept_.push_front({gbnf, state});
  if (kept_.size() > kMaxKeptGrammars) kept_.pop_back();
  return state;
}

bool read_output_format(Fields& fields, Formats& formats, GenerateOptions& options) {
  std::string gbnf;
  int given = 0;
  if (const Json* v = fields.find("response_format")) {
    Fields format(*v, fields.at("response_format"));
    const std::string type = format.text("type").value_or("");
    if (type == "json_object") {
      const Json* schema = format.find("schema");
      gbnf = schema ? json_schema_grammar(*schema) : json_object_grammar();
      ++given;
    } else if (type == "json_schema") {
      Fields named(format.need("json_schema"), format.at("json_schema"));
      named.text("name"), named.text("description"), named.boolean("strict", true);
      gbnf = json_schema_grammar(named.need("schema"));
      named.finish(), ++given;
    } else if (type != "text") {
      format.refuse("type", "text, json_object or json_schema");
    }
    format.finish();
  }
  if (const Json* schema = fields.find("json_schema")) gbnf = json_schema_grammar(*schema), ++given;
  if (const auto source = fields.text("grammar")) gbnf = *source, ++given;
  if (given > 1)
    fields.refuse("response_format", "one of response_format, json_schema and grammar", "several");
  if (given == 0) return false;
  if (options.ignore_eos) fields.refuse("ignore_eos", "false with a format", "true");
  options.grammar = formats.state(gbnf);
  return true;
}

ToolFields read_tool_fields(Fields& fields) {
  ToolFields out;
  const Json* tools = fields.find("tools");
  const Json* choice = fields.find("tool_choice");
  out.grammar.parallel = fields.boolean("parallel_tool_calls", true);
  if (tools && tools->array() && tools->array()->size() > 128) fields.refuse("tools", "at most 128 tools");
  if (tools) out.tools = *tools, out.grammar.tools = read_tools(*tools);
  if (!choice) return out;
  if (choice->text()) {
    const std::string& word = *choice->text();
    if (word != "auto" && word != "none" && word != "required")
      fields.refuse("tool_choice", "auto, none, required or a function", printable(word));
    if (word == "none") out = {};
    out.grammar.required = word == "required";
  } else {
    Fields named(*choice, fields.at("tool_choice"));
    named.only("type", "function", "\"function\"");
    Fields function(named.need("function"), named.at("function"));
    const auto name = function.text("name");
    if (!name) function.refuse("name", "a text", "none");
    out.grammar.named = *name;
    function.finish(), named.finish();
  }
  const bool calls = out.grammar.required || !out.grammar.named.empty();
  if (calls && out.grammar.tools.empty()) fields.refuse("tool_choice", "tools beside it", "none");
  return out;
}

ReplyParser::Options prepare_reply(const ChatPrompt& chat, const std::string& prompt, ReplyFields asked,
                                   Formats& formats, GenerateOptions& options) {
  ReplyParser::Options reply{.id_seed = std::random_device()()};
  const bool thinks = writes_reasoning(chat.source());
  const size_t end = prompt.find_last_not_of(" \n");
  const bool in_thought =
      thinks && end != std::string::npos && prompt.substr(0, end + 1).ends_with("<think>");
  reply.reasoning = thinks && asked.reasoning, reply.in_thought = in_thought && asked.reasoning;
  ToolGrammar& grammar = asked.tools.grammar;
  if (!grammar.tools.empty()) {
    if (asked.constrained) refuse_field("/tools", "no tools beside a format", "both");
    if (options.ignore_eos) refuse_field("/ignore_eos", "false with tools", "true");
    reply.style = grammar.style = tool_style(chat.source());
    grammar.reasoning = thinks, grammar.in_thought = in_thought;
    options.grammar = formats.state(tool_grammar(grammar, &formats.tokenizer()));
  }
  if (thinks && asked.thought_tokens >= 0) {
    const auto id_of = [&](const char* mark) {
      const auto ids = formats.tokenizer().encode(mark, {.add_special = false, .parse_special = true});
      return ids.size() == 1 ? ids[0] : -1;
    };
    options.thought = {asked.thought_tokens, id_of("<think>"), id_of("</think>"), in_thought};
    if (options.thought->close < 0)
      refuse_unsupported("/thinking/budget_tokens", "a limit of thoughts whose end is no token of the model");
  }
  options.special = options.special || reply.style != ToolStyle::none || thinks;
  return reply;
}

}  // namespace plumb::server
