#include "text/tool_prompt.h"

namespace plumb {
namespace {

constexpr std::string_view kBefore =
    "You are an expert in composing functions. You are given a question and a set of possible functions. \n"
    "Based on the question, you will need to make one or more function/tool calls to achieve the purpose. \n"
    "If none of the functions can be used, point it out and refuse to answer. \n"
    "If the given question lacks the parameters required by the function, also point it out.\n\n"
    "You have access to the following tools:\n<tools>";
constexpr std::string_view kBehind =
    "</tools>\n\n"
    "The output MUST strictly adhere to the following format, and NO other text MUST be included.\n"
    "The example format is as follows. Please make sure the parameter type is correct. If no function call "
    "is "
    "needed, please make the tool calls an empty list '[]'.\n"
    "<tool_call>[\n"
    "{\"name\": \"func_name1\", \"arguments\": {\"argument1\": \"value1\", \"argument2\": \"value2\"}},\n"
    "... (more tool calls as required)\n"
    "]</tool_call>";

// An assistant's calls behind its text, and there alone.
Json call_as_text(const Json& message, const Json::Array& calls) {
  Json::Array said;
  for (const Json& call : calls) {
    const Json* function = call.find("function");
    if (!function) continue;
    Json one;
    for (const char* name : {"name", "arguments"}) {
      if (const Json* v = function->find(name)) one.set(name, *v);
    }
    said.push_back(std::move(one));
  }
  const Json* content = message.find("content");
  std::string text = content && content->text() ? *content->text() : "";
  if (!text.empty()) text += '\n';
  Json out;
  for (const auto& [name, value] : *message.object()) {
    if (name != "tool_calls" && name != "content") out.set(name, value);
  }
  out.set("content", text + "<tool_call>" + dump(Json(std::move(said))) + "</tool_call>");
  return out;
}

}  // namespace

bool needs_tools_in_words(std::string_view t) {
  return t.find("<|im_start|>") != std::string_view::npos && t.find("tool") == std::string_view::npos;
}

Json tools_in_words(const Json& messages, const Json& tools) {
  std::string words;
  if (tools.array() && !tools.array()->empty())
    words = std::string(kBefore) + dump(tools) + std::string(kBehind);
  Json::Array out;
  for (const Json& m : *messages.array()) {
    const Json* calls = m.find("tool_calls");
    out.push_back(calls && calls->array() && !calls->array()->empty() ? call_as_text(m, *calls->array()) : m);
  }
  if (words.empty()) return out;
  const Json* role = out.empty() ? nullptr : out.front().find("role");
  if (role && role->text() && *role->text() == "system") {
    const Json* content = out.front().find("content");
    if (content && content->text() && !content->text()->empty()) words = *content->text() + "\n\n" + words;
    out.front().replace("content", words);
  } else {
    Json system;
    system.set("role", "system"), system.set("content", words);
    out.insert(out.begin(), std::move(system));
  }
  return out;
}

}  // namespace plumb
