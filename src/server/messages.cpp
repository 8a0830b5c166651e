// POST /v1/messages and /v1/messages/count_tokens, as Anthropic's clients speak them: what an answer looks
// like. What a request may hold stands in messages_read.cpp.
#include "server/messages.h"

#include "server/answers.h"

namespace plumb::server {
namespace {

class MessageStyle : public Style {
 public:
  MessageStyle(const Service& service, int64_t prompt, const ReplyParser::Options& reply)
      : service_(service), prompt_(prompt), parser_(reply) {}

  ApiStyle api() const override { return ApiStyle::anthropic; }

  Json whole(const std::vector<Choice>& choices) override {
    const Choice& c = choices[0];
    Json::Array content;
    const auto add = [&](std::vector<ReplyPart> parts) {
      for (const ReplyPart& p : parts) {
        if (p.kind != ReplyPart::Kind::call && !content.empty() &&
            *content.back().find("type")->text() == type_of(p)) {
          content.back().replace(field_of(p), *content.back().find(field_of(p))->text() + p.text);
        } else {
          content.push_back(block(p, p.text));
        }
      }
    };
    add(parser_.push(c.text)), add(parser_.finish());
    if (content.empty()) content.push_back(block({}, ""));
    Json out = message(Json(std::move(content)), stop_reason(*c.stop), stop_sequence(c));
    out.set("usage", usage(c.times));
    return out;
  }

  std::string opening() override {
    Json start, m = message(Json(Json::Array{}), Json(), Json());
    m.set("usage", usage({.prompt_tokens = prompt_}));
    start.set("type", "message_start"), start.set("message", std::move(m));
    return sse("message_start", start);
  }

  std::string piece(size_t, const AnswerEvent& event, const std::vector<Choice>&) override {
    std::string out;
    for (const ReplyPart& p : parser_.push(event.text)) out += events(p);
    if (!event.stop) return out;
    for (const ReplyPart& p : parser_.finish()) out += events(p);
    if (index_ < 0) out += events({});
    return out + close();
  }

  std::string closing(const std::vector<Choice>& choices) override {
    const Choice& c = choices[0];
    Json delta, change, end;
    change.set("stop_reason", stop_reason(*c.stop)), change.set("stop_sequence", stop_sequence(c));
    delta.set("type", "message_delta"), delta.set("delta", std::move(change)),
        delta.set("usage", usage(c.times));
    end.set("type", "message_stop");
    return sse("message_delta", delta) + sse("message_stop", end);
  }

 private:
  const char* stop_reason(Stop stop) const {
    if (stop == Stop::stop_string) return "stop_sequence";
    if (stop != Stop::end_of_text) return "max_tokens";
    return parser_.calls() > 0 ? "tool_use" : "end_turn";
  }

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

  static const char* type_of(const ReplyPart& p) {
    return p.kind == ReplyPart::Kind::call        ? "tool_use"
           : p.kind == ReplyPart::Kind::reasoning ? "thinking"
                                                  : "text";
  }
  static const char* field_of(const ReplyPart& p) {
    return p.kind == ReplyPart::Kind::reasoning ? "thinking" : "text";
  }

  // A block of content; of a call with `text` for its arguments, which has been checked to be an object.
  static Json block(const ReplyPart& p, const std::string& text) {
    Json out;
    out.set("type", type_of(p));
    if (p.kind == ReplyPart::Kind::call) {
      out.set("id", p.call.id), out.set("name", p.call.name);
      out.set("input", text.empty() && !p.call.arguments.empty() ? parse_json(p.call.arguments, "arguments")
                                                                 : Json(Json::Object{}));
      return out;
    }
    out.set(field_of(p), text);
    if (p.kind == ReplyPart::Kind::reasoning) out.set("signature", "");
    return out;
  }

  std::string event(const char* name, Json more) const {
    Json out;
    out.set("type", name), out.set("index", index_);
    if (more.object()) {
      for (const auto& [key, value] : *more.object()) out.set(key, value);
    }
    return sse(name, out);
  }

  std::string start(const ReplyPart& p, Json content) {
    std::string out = close();
    open_ = true, ++index_, kind_ = p.kind;
    Json more;
    more.set("content_block", std::move(content));
    return out + event("content_block_start", std::move(more));
  }

  std::string close() { return std::exchange(open_, false) ? event("content_block_stop", Json()) : ""; }

  std::string events(const ReplyPart& p) {
    const bool call = p.kind == ReplyPart::Kind::call;
    std::string out;
    if (call) {
      Json content = block(p, "");
      content.replace("input", Json(Json::Object{}));
      out = start(p, std::move(content));
    } else if (!open_ || kind_ != p.kind) {
      out = start(p, block(p, ""));
    }
    if (!call && p.text.empty()) return out;
    Json delta, more;
    delta.set("type", call                                  ? "input_json_delta"
                      : kind_ == ReplyPart::Kind::reasoning ? "thinking_delta"
                                                            : "text_delta");
    delta.set(call ? "partial_json" : field_of(p), call ? p.call.arguments : p.text);
    more.set("delta", std::move(delta));
    return out + event("content_block_delta", std::move(more));
  }

  const Service& service_;
  const int64_t prompt_;
  ReplyParser parser_;
  int64_t index_ = -1;  // of the block under way
  bool open_ = false;
  ReplyPart::Kind kind_ = ReplyPart::Kind::content;
  const std::string id_ = new_id("msg_");
};

}  // namespace

void handle_messages(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const bool stream = fields.boolean("stream", false);
  fields.need("max_tokens");
  AnswerRequest request = read_answer_fields(fields, call.service, "stop_sequences");
  fields.find("metadata");
  AnthropicAsked asked = read_anthropic(fields, call.service);
  fields.finish();
  const ChatPrompt& chat = need_chat(call.service);
  const std::string prompt = chat.text(asked.conversation);
  request.prompt = chat.encode(prompt);
  const int64_t length = int64_t(request.prompt.size());
  const ReplyParser::Options reply =
      prepare_reply(chat, prompt, {.tools = std::move(asked.tools), .thought_tokens = asked.thought_tokens},
                    *call.service.formats, request.generate);
  answer_with(call, {std::move(request)}, std::make_unique<MessageStyle>(call.service, length, reply),
              stream);
}

void handle_count_tokens(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const AnthropicAsked asked = read_anthropic(fields, call.service);
  fields.finish();
  Json out;
  out.set("input_tokens", int64_t(need_chat(call.service).tokens(asked.conversation).size()));
  call.reply->send({200, dump(out)});
}

}  // namespace plumb::server
