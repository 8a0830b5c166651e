// Anthropic's requests in OpenAI's words, which chat templates understand: blocks of content become texts,
// calls and their results; tools become functions.
#include <fmt/format.h>

#include "base/error.h"
#include "server/messages.h"

namespace plumb::server {
namespace {

constexpr size_t kMaxTools = 128;

// A text, or blocks of type "text".
std::string joined_text(const Json& content, const std::string& pointer) {
  if (content.text()) return *content.text();
  if (!content.array()) refuse_field(pointer, "a text or an array of blocks", "another value");
  std::string all;
  for (size_t i = 0; i < content.array()->size(); ++i) {
    Fields block((*content.array())[i], fmt::format("{}/{}", pointer, i));
    const std::string type = block.need_text("type");
    if (type != "text") block.refuse("type", "blocks of type \"text\"", printable(type));
    all += (all.empty() ? "" : "\n") + block.need_text("text");
    block.find("cache_control"), block.find("citations");
    block.finish();
  }
  return all;
}

Json message_of(const char* role, std::string content) {
  Json m;
  m.set("role", role), m.set("content", std::move(content));
  return m;
}

Json call_of(Fields& block) {
  Json call, function;
  const Json& input = block.need("input");
  if (!input.object()) block.refuse("input", "an object");
  function.set("name", block.need_text("name")), function.set("arguments", dump(input));
  call.set("id", block.need_text("id")), call.set("type", "function"),
      call.set("function", std::move(function));
  return call;
}

// One message with blocks becomes the results of tools first, as templates expect them, and then itself.
void add_blocks(Json::Array& out, const std::string& role, const Json::Array& blocks,
                const std::string& pointer) {
  std::string text, thought;
  Json::Array calls;
  bool results = false;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const std::string at = fmt::format("{}/{}", pointer, i);
    Fields block(blocks[i], at);
    const std::string type = block.need_text("type");
    const bool assistant = role == "assistant";
    if (type == "text") {
      text += (text.empty() ? "" : "\n") + block.need_text("text");
      block.find("citations");
    } else if (type == "thinking" && assistant) {
      thought += block.need_text("thinking"), block.text("signature");
    } else if (type == "tool_use" && assistant) {
      calls.push_back(call_of(block));
    } else if (type == "tool_result" && !assistant) {
      const Json* content = block.find("content");
      Json result = message_of("tool", content ? joined_text(*content, at + "/content") : "");
      result.set("tool_call_id", block.need_text("tool_use_id")), block.boolean("is_error", false);
      out.push_back(std::move(result)), results = true;
    } else {
      block.refuse("type", assistant ? "text, thinking or tool_use" : "text or tool_result", printable(type));
    }
    block.find("cache_control");
    block.finish();
  }
  if (results && text.empty()) return;
  Json m = message_of(role.c_str(), text);
  if (!thought.empty()) m.set("reasoning_content", thought);
  if (!calls.empty()) m.set("tool_calls", std::move(calls));
  out.push_back(std::move(m));
}

Json::Array read_messages(Fields& fields) {
  Json::Array out;
  if (const Json* system = fields.find("system"))
    out.push_back(message_of("system", joined_text(*system, "/system")));
  const Json& asked = fields.need("messages");
  if (!asked.array() || asked.array()->empty() || asked.array()->size() > kMaxMessages)
    fields.refuse("messages", fmt::format("an array of 1 to {} messages", kMaxMessages));
  for (size_t i = 0; i < asked.array()->size(); ++i) {
    Fields message((*asked.array())[i], fmt::format("/messages/{}", i));
    const std::string role = message.need_text("role");
    if (role != "user" && role != "assistant") message.refuse("role", "user or assistant", printable(role));
    const Json& content = message.need("content");
    message.finish();
    if (content.array()) {
      add_blocks(out, role, *content.array(), message.at("content"));
    } else {
      out.push_back(message_of(role.c_str(), joined_text(content, message.at("content"))));
    }
  }
  return out;
}

ToolFields read_tools_of(Fields& fields) {
  ToolFields out;
  if (const Json* tools = fields.find("tools")) {
    if (!tools->array() || tools->array()->size() > kMaxTools)
      fields.refuse("tools", fmt::format("an array of at most {} tools", kMaxTools));
    Json::Array functions;
    for (size_t i = 0; i < tools->array()->size(); ++i) {
      Fields tool((*tools->array())[i], fmt::format("/tools/{}", i));
      tool.only("type", "custom", "\"custom\"");
      Json function, one;
      function.set("name", tool.need_text("name"));
      if (const auto text = tool.text("description")) function.set("description", *text);
      const Json& schema = tool.need("input_schema");
      if (!schema.object()) tool.refuse("input_schema", "a JSON schema");
      function.set("parameters", schema), function.set("strict", tool.boolean("strict", false));
      tool.find("cache_control"), tool.finish();
      one.set("type", "function"), one.set("function", std::move(function));
      functions.push_back(std::move(one));
    }
    out.tools = Json(std::move(functions)), out.grammar.tools = read_tools(out.tools);
  }
  const Json* choice = fields.find("tool_choice");
  if (!choice) return out;
  Fields chosen(*choice, "/tool_choice");
  const std::string type = chosen.need_text("type");
  out.grammar.parallel = !chosen.boolean("disable_parallel_tool_use", false);
  if (type == "tool") {
    out.grammar.named = chosen.need_text("name");
  } else if (type == "any") {
    out.grammar.required = true;
  } else if (type == "none") {
    out = {};
  } else if (type != "auto") {
    chosen.refuse("type", "auto, any, tool or none", printable(type));
  }
  chosen.finish();
  const bool calls = out.grammar.required || !out.grammar.named.empty();
  if (calls && out.grammar.tools.empty()) fields.refuse("tool_choice", "tools beside it", "none");
  return out;
}

}  // namespace

AnthropicAsked read_anthropic(Fields& fields, const Service& service) {
  // One by one: what g++ 12 has made of a braced list it destroys twice when a later member throws.
  AnthropicAsked out;
  out.conversation.messages = read_messages(fields);
  out.conversation.now = std::time(nullptr);
  out.tools = read_tools_of(fields);
  out.conversation.tools = out.tools.tools;
  bool think = false;
  if (const Json* thinking = fields.find("thinking")) {
    Fields asked(*thinking, "/thinking");
    const std::string type = asked.need_text("type");
    if (type != "enabled" && type != "disabled" && type != "adaptive")
      asked.refuse("type", "enabled, disabled or adaptive", printable(type));
    think = type != "disabled";
    out.thought_tokens = int(asked.integer("budget_tokens", -1, 1, 1 << 30));
    if (!think && out.thought_tokens >= 0) asked.refuse("budget_tokens", "none beside disabled");
    asked.finish();
  }
  // Templates that know of thoughts ask for this variable.
  out.conversation.variables = service.variables;
  out.conversation.variables.replace("enable_thinking", think);
  return out;
}

}  // namespace plumb::server
