#include "engine/chat_prompt.h"

#include "base/error.h"
#include "text/tool_prompt.h"

namespace plumb {
namespace {

[[noreturn]] void refuse(const std::string& pointer, const char* expected, const char* found) {
  throw Error({.code = "chat.message", .expected = expected, .found = found, .where = {.key = pointer}});
}

std::string own_template(const Model& model) {
  const auto own = model.file().text("tokenizer.chat_template");
  if (!own) {
    throw Error({.code = "chat.no_template",
                 .expected = "a model with a chat template",
                 .found = "a file without tokenizer.chat_template",
                 .remedy = "give one with --chat-template-file"});
  }
  return std::string(*own);
}

Json joined_content(const Json::Array& parts, const std::string& pointer) {
  std::string all;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string at = pointer + "/" + std::to_string(i);
    const Json* type = parts[i].find("type");
    const Json* text = parts[i].find("text");
    if (!type || !type->text()) refuse(at + "/type", "the type of a part", "none");
    if (*type->text() != "text") refuse(at + "/type", "parts of type \"text\"", "another type");
    if (!text || !text->text()) refuse(at + "/text", "a text", "none");
    if (i > 0) all += '\n';
    all += *text->text();
  }
  return all;
}

// {"function": {"name", "arguments": "{...}"}} with the arguments as an object, where they are one.
Json parsed_call(const Json& call) {
  const Json* function = call.find("function");
  const Json* arguments = function ? function->find("arguments") : nullptr;
  if (!arguments || !arguments->text()) return call;
  Json parsed;
  try {
    parsed = parse_json(*arguments->text(), "arguments");
  } catch (const Error&) {  // a model wrote them; the template sees the text
    return call;
  }
  if (!parsed.object()) return call;
  Json changed = *function, out = call;
  changed.replace("arguments", std::move(parsed));
  out.replace("function", std::move(changed));
  return out;
}

Json template_message(const Json& message, const std::string& pointer) {
  if (!message.object()) refuse(pointer, "an object", "another value");
  const Json* role = message.find("role");
  if (!role || !role->text()) refuse(pointer + "/role", "a text", role ? "another value" : "none");
  Json out = message;
  if (const Json* content = message.find("content")) {
    if (content->array()) {
      out.replace("content", joined_content(*content->array(), pointer + "/content"));
    } else if (!content->text() && !content->is_null()) {
      refuse(pointer + "/content", "a text or an array of parts", "another value");
    }
  }
  if (const Json* calls = message.find("tool_calls"); calls && calls->array()) {
    Json::Array parsed;
    for (const Json& call : *calls->array()) parsed.push_back(parsed_call(call));
    out.replace("tool_calls", std::move(parsed));
  }
  return out;
}

// With an empty text where a message has null for its content.
Json texts_for_null(const Json& messages) {
  Json::Array out = *messages.array();
  for (Json& m : out) {
    const Json* content = m.find("content");
    if (content && content->is_null()) m.replace("content", "");
  }
  return out;
}

}  // namespace

Json template_messages(const Json& messages) {
  if (!messages.array()) refuse("/messages", "an array of messages", "another value");
  Json::Array out;
  for (size_t i = 0; i < messages.array()->size(); ++i)
    out.push_back(template_message((*messages.array())[i], "/messages/" + std::to_string(i)));
  return out;
}

std::string token_text(const Tokenizer& tokenizer, int id) {
  return id < 0 ? std::string() : std::string(tokenizer.token(id));
}

ChatPrompt::ChatPrompt(const Model& model, std::string source)
    : model_(model),
      source_(source.empty() ? own_template(model) : std::move(source)),
      template_(ChatTemplate::parse(source_)) {}

std::string ChatPrompt::text(const Conversation& c) const {
  const Json messages = template_messages(c.messages);
  if (needs_tools_in_words(source_)) return render(c, tools_in_words(messages, c.tools), Json());
  try {
    return render(c, messages, c.tools);
  } catch (const Error& e) {
    // Templates made for calls of tools alone take the absence of tools, or of a text beside a call, for a
    // list and a text.
    if (e.code() != "template.type") throw;
    try {
      return render(c, texts_for_null(messages), c.tools.is_null() ? Json(Json::Array{}) : c.tools);
    } catch (const Error&) {
    }
    throw;
  }
}

std::string ChatPrompt::render(const Conversation& c, const Json& messages, const Json& tools) const {
  const Tokenizer& tokenizer = model_.tokenizer();
  return template_.render({.messages = messages,
                           .tools = tools,
                           .variables = c.variables,
                           .bos_token = token_text(tokenizer, tokenizer.bos()),
                           .eos_token = token_text(tokenizer, tokenizer.eos()),
                           .add_generation_prompt = c.add_generation_prompt,
                           .now = c.now});
}

std::vector<int> ChatPrompt::encode(const std::string& text) const {
  const Tokenizer& tokenizer = model_.tokenizer();
  std::vector<int> ids = tokenizer.encode(text, {.add_special = false, .parse_special = true});
  if (tokenizer.adds_bos() && tokenizer.bos() >= 0 && (ids.empty() || ids.front() != tokenizer.bos()))
    ids.insert(ids.begin(), tokenizer.bos());
  return ids;
}

}  // namespace plumb
