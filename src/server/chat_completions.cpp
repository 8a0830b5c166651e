// POST /v1/chat/completions.
#include <algorithm>

#include "base/error.h"
#include "server/openai.h"

namespace plumb::server {
namespace {

struct ChatAsked {
  StreamFields stream;
  OwnFields own;
  bool logprobs = false, timings = false;
  ReplyParser::Options reply = {};
};

class ChatStyle : public Style {
 public:
  ChatStyle(const Service& service, const ChatAsked& asked, size_t choices)
      : service_(service), asked_(asked), scores_{service.model.tokenizer(), asked.own.margin} {
    for (size_t i = 0; i < choices; ++i) {
      ReplyParser::Options reply = asked.reply;
      reply.id_seed += i;
      parsers_.emplace_back(reply);
    }
    called_.resize(choices);
  }

  Json whole(const std::vector<Choice>& choices) override {
    Json out = envelope(service_, id_, "chat.completion", created_);
    Json::Array list;
    for (size_t i = 0; i < choices.size(); ++i) {
      Json choice, message = whole_message(parsers_[i], choices[i].text);
      choice.set("index", int64_t(i)), choice.set("message", std::move(message));
      choice.set("logprobs", logprobs(choices[i].tokens));
      choice.set("finish_reason", reason(i, *choices[i].stop));
      list.push_back(std::move(choice));
    }
    out.set("choices", std::move(list));
    out.set("usage", usage_json(choices, int(choices.size())));
    out.set("timings", timings_json(choices[0].times));
    return out;
  }

  std::string opening() override { return {}; }

  std::string piece(size_t i, const AnswerEvent& event, const std::vector<Choice>& choices) override {
    std::string out;
    if (event.first) {
      Json delta;
      delta.set("role", "assistant"), delta.set("content", "");
      out += chunk(i, std::move(delta), Json(), Json());
    }
    Json scores = asked_.logprobs && !event.tokens.empty() ? logprobs(event.tokens) : Json();
    std::vector<ReplyPart> parts = parsers_[i].push(event.text);
    if (event.stop) {
      for (ReplyPart& rest : parsers_[i].finish()) parts.push_back(std::move(rest));
    }
    for (const ReplyPart& p : parts) out += chunk(i, delta_of(p, i), std::exchange(scores, Json()), Json());
    if (!scores.is_null()) out += chunk(i, text_delta("content", ""), std::move(scores), Json());
    if (asked_.timings && !event.stop) {
      Json timed = part(i, Json(Json::Object{}), Json(), Json());
      timed.set("timings", timings_json(event.times));
      out += sse(timed);
    }
    if (event.stop) {
      Json last = part(i, Json(Json::Object{}), Json(), reason(i, *event.stop));
      last.set("timings", timings_json(choices[i].times));
      out += sse(last);
    }
    return out;
  }

  std::string progress(size_t i, const AnswerEvent& event) override {
    Json out = part(i, Json(Json::Object{}), Json(), Json());
    out.set("prompt_progress", progress_json(event));
    return sse(out);
  }

  std::string closing(const std::vector<Choice>& choices) override {
    std::string out;
    if (asked_.stream.usage) {
      Json last = envelope(service_, id_, "chat.completion.chunk", created_);
      last.set("choices", Json(Json::Array{})), last.set("usage", usage_json(choices, int(choices.size())));
      out = sse(last);
    }
    return out + "data: [DONE]\n\n";
  }

 private:
  const char* reason(size_t i, Stop stop) const {
    const char* plain = finish_reason(stop);
    return parsers_[i].calls() > 0 && std::string_view(plain) == "stop" ? "tool_calls" : plain;
  }

  static Json text_delta(const char* name, const std::string& text) {
    Json delta;
    delta.set(name, text);
    return delta;
  }

  Json delta_of(const ReplyPart& part, size_t i) {
    if (part.kind == ReplyPart::Kind::content) return text_delta("content", part.text);
    if (part.kind == ReplyPart::Kind::reasoning) return text_delta("reasoning_content", part.text);
    Json call, delta;
    call.set("index", called_[i]++);
    const Json whole = part.call.json();
    for (const auto& [name, value] : *whole.object()) call.set(name, value);
    delta.set("tool_calls", Json(Json::Array{std::move(call)}));
    return delta;
  }

  static Json whole_message(ReplyParser& parser, const std::string& text) {
    std::string content, reasoning;
    Json::Array calls;
    std::vector<ReplyPart> parts = parser.push(text);
    for (ReplyPart& rest : parser.finish()) parts.push_back(std::move(rest));
    for (const ReplyPart& p : parts) {
      if (p.kind == ReplyPart::Kind::content) content += p.text;
      if (p.kind == ReplyPart::Kind::reasoning) reasoning += p.text;
      if (p.kind == ReplyPart::Kind::call) calls.push_back(p.call.json());
    }
    Json message;
    message.set("role", "assistant");
    message.set("content", content.empty() && !calls.empty() ? Json() : Json(content));
    if (!reasoning.empty()) message.set("reasoning_content", reasoning);
    if (!calls.empty()) message.set("tool_calls", std::move(calls));
    return message;
  }

  Json logprobs(const std::vector<ScoredToken>& tokens) const {
    if (!asked_.logprobs) return {};
    Json::Array content;
    for (const ScoredToken& t : tokens) content.push_back(scores_.entry(t));
    Json out;
    out.set("content", std::move(content));
    return out;
  }

  Json part(size_t i, Json delta, Json scores, Json reason) const {
    Json out = envelope(service_, id_, "chat.completion.chunk", created_), choice;
    choice.set("index", int64_t(i)), choice.set("delta", std::move(delta));
    choice.set("logprobs", std::move(scores)), choice.set("finish_reason", std::move(reason));
    out.set("choices", Json(Json::Array{std::move(choice)}));
    if (asked_.stream.usage) out.set("usage", Json());
    return out;
  }

  std::string chunk(size_t i, Json delta, Json scores, Json reason) const {
    return sse(part(i, std::move(delta), std::move(scores), std::move(reason)));
  }

  const Service& service_;
  const ChatAsked asked_;
  const ScoreText scores_;
  std::vector<ReplyParser> parsers_;  // of the choices
  std::vector<int> called_;           // tools so far
  const std::string id_ = new_id("chatcmpl-");
  const std::time_t created_ = std::time(nullptr);
};

// reasoning_effort becomes a variable of the template; reasoning_format none leaves thoughts in the text.
void read_reasoning(Fields& fields, Conversation& conversation, ReplyFields& reply) {
  if (const auto effort = fields.text("reasoning_effort")) {
    constexpr std::string_view efforts[] = {"none", "minimal", "low", "medium", "high", "xhigh"};
    if (std::find(std::begin(efforts), std::end(efforts), *effort) == std::end(efforts))
      fields.refuse("reasoning_effort", "none, minimal, low, medium, high or xhigh", printable(*effort));
    const auto set = [&](const char* name, Json value) {
      if (!conversation.variables.find(name)) conversation.variables.set(name, std::move(value));
    };
    set("reasoning_effort", *effort), set("enable_thinking", *effort != "none");
  }
  if (const auto format = fields.text("reasoning_format")) {
    if (*format != "none" && *format != "auto" && *format != "deepseek")
      fields.refuse("reasoning_format", "none, auto or deepseek", printable(*format));
    reply.reasoning = *format != "none";
  }
}

}  // namespace

Conversation read_conversation(Fields& fields, const Service& service) {
  Conversation c{.variables = service.variables, .now = std::time(nullptr)};
  c.messages = fields.need("messages");
  if (!c.messages.array()) fields.refuse("messages", "an array");
  if (c.messages.array()->empty() || c.messages.array()->size() > kMaxMessages)
    fields.refuse("messages", "1 to 4096 messages", std::to_string(c.messages.array()->size()));
  if (const Json* kwargs = fields.find("chat_template_kwargs")) {
    if (!kwargs->object()) fields.refuse("chat_template_kwargs", "an object");
    for (const auto& [name, value] : *kwargs->object()) c.variables.replace(name, value);
  }
  return c;
}

void handle_chat_completions(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  ChatAsked asked{.stream = read_stream_fields(fields), .own = {}};
  asked.own = read_own_fields(fields);
  AnswerRequest request = read_answer_fields(fields, call.service);
  const int n = int(fields.integer("n", 1, 1, 8));
  asked.logprobs = fields.boolean("logprobs", asked.own.margin);
  const int top = int(fields.integer("top_logprobs", 0, 0, 20));
  if (top > 0 && !asked.logprobs) fields.refuse("top_logprobs", "logprobs: true beside it", "none");
  request.top = asked.logprobs ? top : -1;
  accept_idle_fields(fields);
  asked.timings = read_live_fields(fields, asked.stream.stream, request);
  ReplyFields reply;
  reply.constrained = read_output_format(fields, *call.service.formats, request.generate);
  reply.tools = read_tool_fields(fields);
  Conversation conversation = read_conversation(fields, call.service);
  read_reasoning(fields, conversation, reply);
  fields.finish();
  const ChatPrompt& chat = need_chat(call.service);
  conversation.tools = reply.tools.tools;
  const std::string prompt = chat.text(conversation);
  request.prompt = chat.encode(prompt);
  asked.reply = prepare_reply(chat, prompt, std::move(reply), *call.service.formats, request.generate);
  std::vector<AnswerRequest> requests;
  repeat(requests, request, n);
  answer_with(call, std::move(requests), std::make_unique<ChatStyle>(call.service, asked, size_t(n)),
              asked.stream.stream);
}

}  // namespace plumb::server
