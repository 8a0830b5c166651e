// POST /v1/responses: texts in, one text out. Nothing is stored between requests.
#include "server/responses.h"

#include "server/openai.h"

namespace plumb::server {
namespace {

class ResponseStyle : public Style {
 public:
  explicit ResponseStyle(const Service& service) : service_(service) {}

  Json whole(const std::vector<Choice>& choices) override {
    const Choice& c = choices[0];
    const bool complete = std::string_view(finish_reason(*c.stop)) == "stop";
    Json out = response(complete ? "completed" : "incomplete");
    out.replace("output", Json(Json::Array{item("completed", Json(Json::Array{part(c.text)}))}));
    if (!complete) {
      Json why;
      why.set("reason", "max_output_tokens");
      out.replace("incomplete_details", std::move(why));
    }
    Json usage, in, details;
    in.set("cached_tokens", c.times.cached_tokens), details.set("reasoning_tokens", 0);
    usage.set("input_tokens", c.times.prompt_tokens), usage.set("input_tokens_details", std::move(in));
    usage.set("output_tokens", c.times.answer_tokens), usage.set("output_tokens_details", std::move(details));
    usage.set("total_tokens", c.times.prompt_tokens + c.times.answer_tokens);
    out.set("usage", std::move(usage));
    return out;
  }

  std::string opening() override {
    Json added = at(), content = at();
    Json created, progress;
    created.set("response", response("in_progress")), progress.set("response", response("in_progress"));
    added.set("item", item("in_progress", Json(Json::Array{})));
    content.set("item_id", message_), content.set("content_index", 0), content.set("part", part(""));
    std::string out = event("response.created", created);
    out += event("response.in_progress", progress);
    out += event("response.output_item.added", added);
    return out + event("response.content_part.added", content);
  }

  std::string piece(size_t, const AnswerEvent& e, const std::vector<Choice>&) override {
    if (e.text.empty()) return {};
    Json out = at();
    out.set("item_id", message_), out.set("content_index", 0), out.set("delta", e.text);
    out.set("logprobs", Json(Json::Array{}));
    return event("response.output_text.delta", out);
  }

  std::string closing(const std::vector<Choice>& choices) override {
    const std::string& text = choices[0].text;
    Json done = at(), content = at(), added = at(), all;
    done.set("item_id", message_), done.set("content_index", 0), done.set("text", text);
    done.set("logprobs", Json(Json::Array{}));
    content.set("item_id", message_), content.set("content_index", 0), content.set("part", part(text));
    added.set("item", item("completed", Json(Json::Array{part(text)})));
    Json final_response = whole(choices);
    const bool complete = *final_response.find("status")->text() == "completed";
    all.set("response", std::move(final_response));
    std::string out = event("response.output_text.done", done);
    out += event("response.content_part.done", content);
    out += event("response.output_item.done", added);
    return out + event(complete ? "response.completed" : "response.incomplete", all);
  }

 private:
  static Json at() {
    Json out;
    out.set("output_index", 0);
    return out;
  }

  static Json part(const std::string& text) {
    Json out;
    out.set("type", "output_text"), out.set("text", text), out.set("annotations", Json(Json::Array{}));
    return out;
  }

  Json item(const char* status, Json content) const {
    Json out;
    out.set("id", message_), out.set("type", "message"), out.set("status", status),
        out.set("role", "assistant");
    out.set("content", std::move(content));
    return out;
  }

  Json response(const char* status) const {
    Json out;
    out.set("id", id_), out.set("object", "response"), out.set("created_at", int64_t(created_));
    out.set("status", status), out.set("model", service_.model_id), out.set("output", Json(Json::Array{}));
    out.set("error", Json()), out.set("incomplete_details", Json()), out.set("instructions", Json());
    out.set("metadata", Json(Json::Object{})), out.set("parallel_tool_calls", false);
    out.set("tool_choice", "none"), out.set("tools", Json(Json::Array{})), out.set("store", false);
    return out;
  }

  std::string event(const char* name, Json data) {
    data.set("type", name), data.set("sequence_number", number_++);
    return sse(name, data);
  }

  const Service& service_;
  int64_t number_ = 0;
  const std::string id_ = new_id("resp_"), message_ = new_id("msg_");
  const std::time_t created_ = std::time(nullptr);
};

// A text, or messages whose parts are "input_text" and "output_text".
Json read_input(Fields& fields) {
  Json::Array messages;
  const auto add = [&](const char* role, Json content) {
    Json m;
    m.set("role", role), m.set("content", std::move(content));
    messages.push_back(std::move(m));
  };
  if (const auto instructions = fields.text("instructions")) add("system", *instructions);
  const Json& input = fields.need("input");
  if (input.text()) {
    add("user", *input.text());
    return messages;
  }
  if (!input.array() || input.array()->empty()) fields.refuse("input", "a text or an array of messages");
  for (size_t i = 0; i < input.array()->size(); ++i) {
    Fields message((*input.array())[i], "/input/" + std::to_string(i));
    message.only("type", "message", "\"message\""), message.find("id"), message.find("status");
    const auto role = message.text("role");
    if (!role) message.refuse("role", "a text", "none");
    Json content = message.need("content");
    message.finish();
    if (content.array()) {
      Json::Array parts = *content.array();
      for (Json& part : parts) {
        const Json* type = part.find("type");
        if (type && type->text() && (*type->text() == "input_text" || *type->text() == "output_text"))
          part.replace("type", "text");
      }
      content = Json(std::move(parts));
    }
    add(role->c_str(), std::move(content));
  }
  return messages;
}

}  // namespace

void handle_responses(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const bool stream = fields.boolean("stream", false);
  AnswerRequest request = read_answer_fields(fields, call.service);
  if (fields.find("max_output_tokens"))
    request.generate.n_predict = int(fields.integer("max_output_tokens", 0, 1, 1 << 30));
  fields.find("user"), fields.find("metadata"), fields.find("include");
  fields.only("store", false, "false: nothing is kept");
  fields.only("truncation", "disabled", "\"disabled\"");
  for (const char* name :
       {"previous_response_id", "conversation", "text", "reasoning", "background", "tools", "tool_choice"}) {
    if (fields.find(name))
      refuse_unsupported(fields.at(name), std::string(name) + ", which is not supported");
  }
  const Conversation conversation{
      .messages = read_input(fields), .variables = call.service.variables, .now = std::time(nullptr)};
  fields.finish();
  request.prompt = need_chat(call.service).tokens(conversation);
  answer_with(call, {std::move(request)}, std::make_unique<ResponseStyle>(call.service), stream);
}

}  // namespace plumb::server
