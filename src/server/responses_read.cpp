// What /v1/responses is asked, in the words of chat completions, which templates understand.
#include <fmt/format.h>

#include "base/error.h"
#include "server/responses.h"

namespace plumb::server {
namespace {

constexpr size_t kMaxItems = 4096;

Json message(const char* role, Json content) {
  Json m;
  m.set("role", role), m.set("content", std::move(content));
  return m;
}

// Parts are "input_text" and "output_text" here, "text" there.
Json content_of(const Json& content) {
  if (!content.array()) return content;
  Json::Array parts = *content.array();
  for (Json& part : parts) {
    const Json* type = part.find("type");
    if (type && type->text() && (*type->text() == "input_text" || *type->text() == "output_text"))
      part.replace("type", "text");
  }
  return parts;
}

// Calls of one turn stand in one message, behind its text.
void add_call(Json::Array& out, Fields& item) {
  Json function, call;
  function.set("name", item.need_text("name")), function.set("arguments", item.need_text("arguments"));
  call.set("id", item.need_text("call_id")), call.set("type", "function");
  call.set("function", std::move(function));
  if (out.empty() || *out.back().find("role")->text() != "assistant")
    out.push_back(message("assistant", Json("")));
  const Json* before = out.back().find("tool_calls");
  Json::Array calls = before ? *before->array() : Json::Array{};
  calls.push_back(std::move(call));
  if (before) {
    out.back().replace("tool_calls", std::move(calls));
  } else {
    out.back().set("tool_calls", std::move(calls));
  }
}

void add_item(Json::Array& out, Fields& item) {
  const std::string type = item.text("type").value_or("message");
  item.find("id"), item.find("status");
  if (type == "message") {
    const std::string role = item.need_text("role");
    out.push_back(message(role.c_str(), content_of(item.need("content"))));
  } else if (type == "function_call") {
    add_call(out, item);
  } else if (type == "function_call_output") {
    Json result = message("tool", content_of(item.need("output")));
    result.set("tool_call_id", item.need_text("call_id"));
    out.push_back(std::move(result));
  } else if (type == "reasoning") {
    item.find("summary"), item.find("content"),
        item.find("encrypted_content");  // templates drop old thoughts
  } else {
    item.refuse("type", "message, function_call, function_call_output or reasoning", printable(type));
  }
  item.finish();
}

}  // namespace

Json read_input(Fields& fields) {
  Json::Array messages;
  if (const auto instructions = fields.text("instructions"))
    messages.push_back(message("system", *instructions));
  const Json& input = fields.need("input");
  if (input.text()) {
    messages.push_back(message("user", *input.text()));
    return messages;
  }
  if (!input.array() || input.array()->empty() || input.array()->size() > kMaxItems)
    fields.refuse("input", fmt::format("a text or an array of 1 to {} items", kMaxItems));
  for (size_t i = 0; i < input.array()->size(); ++i) {
    Fields item((*input.array())[i], fmt::format("/input/{}", i));
    add_item(messages, item);
  }
  return messages;
}

ResponseTools read_response_tools(Fields& fields) {
  ResponseTools out;
  Json nested = Json::Object{};
  if (const Json* tools = fields.find("tools")) {
    if (!tools->array()) fields.refuse("tools", "an array");
    Json::Array functions;
    for (size_t i = 0; i < tools->array()->size(); ++i) {
      Fields tool((*tools->array())[i], fmt::format("/tools/{}", i));
      if (tool.need_text("type") != "function") tool.refuse("type", "\"function\"");
      Json function, one;
      for (const char* name : {"name", "description", "parameters", "strict"}) {
        if (const Json* v = tool.find(name)) function.set(name, *v);
      }
      tool.finish();
      one.set("type", "function"), one.set("function", std::move(function));
      functions.push_back(std::move(one));
    }
    out.given = *tools, nested.set("tools", std::move(functions));
  }
  if (const Json* choice = fields.find("tool_choice")) {
    out.choice = *choice;
    Json chosen = *choice;
    if (choice->object()) {
      Fields named(*choice, "/tool_choice");
      if (named.need_text("type") != "function") named.refuse("type", "\"function\"");
      Json function;
      function.set("name", named.need_text("name"));
      named.finish();
      chosen = Json::Object{};
      chosen.set("type", "function"), chosen.set("function", std::move(function));
    }
    nested.set("tool_choice", std::move(chosen));
  }
  out.parallel = fields.boolean("parallel_tool_calls", true);
  nested.set("parallel_tool_calls", out.parallel);
  Fields all(nested);
  out.fields = read_tool_fields(all);
  return out;
}

bool read_text_format(Fields& fields, Formats& formats, GenerateOptions& options) {
  Json nested = Json::Object{};
  if (const Json* text = fields.find("text")) {
    Fields asked(*text, "/text");
    if (const Json* format = asked.find("format")) {
      Fields f(*format, "/text/format");
      const std::string type = f.need_text("type");
      Json out, named = Json::Object{};
      out.set("type", type);
      if (type == "json_schema") {
        for (const char* name : {"name", "description", "strict", "schema"}) {
          if (const Json* v = f.find(name)) named.set(name, *v);
        }
        out.set("json_schema", std::move(named));
      }
      f.finish();
      nested.set("response_format", std::move(out));
    }
    asked.only("verbosity", "medium", "\"medium\"");
    asked.finish();
  }
  Fields all(nested);
  return read_output_format(all, formats, options);
}

}  // namespace plumb::server
