// POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients speak them.
#include "server/messages.h"

#include "server/answers.h"

namespace plumb::server {
namespace {

const char* stop_reason(Stop stop) {
  return stop == Stop::end_of_text ? "end_turn" : stop == Stop::stop_string ? "stop_sequence" : "max_tokens";
}

class MessageStyle : public Style {
 public:
  MessageStyle(const Service& service, int64_t prompt) : service_(service), prompt_(prompt) {}

  ApiStyle api() const override { return ApiStyle::anthropic; }

  Json whole(const std::vector<Choice>& choices) override {
    const Choice& c = choices[0];
    Json text;
    text.set("type", "text"), text.set("text", c.text);
    Json out = message(Json(Json::Array{std::move(text)}), stop_reason(*c.stop), stop_sequence(c));
    out.set("usage", usage(c.times));
    return out;
  }

  std::string opening() override {
    Json start, block, content;
    start.set("type", "message_start");
    Json m = message(Json(Json::Array{}), Json(), Json());
    m.set("usage", usage({.prompt_tokens = prompt_}));
    start.set("message", std::move(m));
    content.set("type", "text"), content.set("text", "");
    block.set("type", "content_block_start"), block.set("index", 0),
        block.set("content_block", std::move(content));
    return sse("message_start", start) + sse("content_block_start", block);
  }

  std::string piece(size_t, const AnswerEvent& event, const std::vector<Choice>&) override {
    if (event.text.empty()) return {};
    Json out, delta;
    delta.set("type", "text_delta"), delta.set("text", event.text);
    out.set("type", "content_block_delta"), out.set("index", 0), out.set("delta", std::move(delta));
    return sse("content_block_delta", out);
  }

  std::string closing(const std::vector<Choice>& choices) override {
    const Choice& c = choices[0];
    Json stop, delta, change, end;
    stop.set("type", "content_block_stop"), stop.set("index", 0);
    change.set("stop_reason", stop_reason(*c.stop)), change.set("stop_sequence", stop_sequence(c));
    delta.set("type", "message_delta"), delta.set("delta", std::move(change)),
        delta.set("usage", usage(c.times));
    end.set("type", "message_stop");
    return sse("content_block_stop", stop) + sse("message_delta", delta) + sse("message_stop", end);
  }

 private:
  static Json stop_sequence(const Choice& c) { return c.stop_string.empty() ? Json() : Json(c.stop_string); }

  static Json usage(const AnswerTimes& t) {
    Json out;
    out.set("input_tokens", t.prompt_tokens - t.cached_tokens), out.set("output_tokens", t.answer_tokens);
    out.set("cache_read_input_tokens", t.cached_tokens), out.set("cache_creation_input_tokens", 0);
    return out;
  }

  Json message(Json content, Json reason, Json sequence) const {
    Json out;
    out.set("id", id_), out.set("type", "message"), out.set("role", "assistant");
    out.set("model", service_.model_id), out.set("content", std::move(content));
    out.set("stop_reason", std::move(reason)), out.set("stop_sequence", std::move(sequence));
    return out;
  }

  const Service& service_;
  const int64_t prompt_;
  const std::string id_ = new_id("msg_");
};

// `system` and `messages` as one conversation.
Conversation read_anthropic_conversation(Fields& fields) {
  Json::Array messages;
  if (const Json* system = fields.find("system")) {
    Json m;
    m.set("role", "system"), m.set("content", *system);
    messages.push_back(std::move(m));
  }
  const Json& asked = fields.need("messages");
  if (!asked.array() || asked.array()->empty() || asked.array()->size() > 4096)
    fields.refuse("messages", "an array of 1 to 4096 messages");
  messages.insert(messages.end(), asked.array()->begin(), asked.array()->end());
  for (const char* name : {"tools", "tool_choice", "thinking"}) {
    if (fields.find(name))
      refuse_unsupported(fields.at(name), std::string(name) + ", which is not supported");
  }
  return {.messages = std::move(messages), .now = std::time(nullptr)};
}

}  // namespace

void handle_messages(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const bool stream = fields.boolean("stream", false);
  fields.need("max_tokens");
  AnswerRequest request = read_answer_fields(fields, call.service, "stop_sequences");
  fields.find("metadata");
  const Conversation conversation = read_anthropic_conversation(fields);
  fields.finish();
  request.prompt = need_chat(call.service).tokens(conversation);
  const int64_t prompt = int64_t(request.prompt.size());
  answer_with(call, {std::move(request)}, std::make_unique<MessageStyle>(call.service, prompt), stream);
}

void handle_count_tokens(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const Conversation conversation = read_anthropic_conversation(fields);
  fields.finish();
  Json out;
  out.set("input_tokens", int64_t(need_chat(call.service).tokens(conversation).size()));
  call.reply->send({200, dump(out)});
}

}  // namespace plumb::server
