// POST /v1/responses: texts, calls and their results in, a text or calls out. Nothing is stored between
// requests.
#include "server/responses.h"

#include "server/openai.h"

namespace plumb::server {
namespace {

using Kind = ReplyPart::Kind;

// Takes a reply apart into items, each with its events: a message, a thought, a call.
class ResponseStyle : public Style {
 public:
  ResponseStyle(const Service& service, const ReplyParser::Options& reply, const ResponseTools& tools)
      : service_(service), parser_(reply), tools_(tools) {}

  Json whole(const std::vector<Choice>& choices) override {
    const Choice& c = choices[0];
    if (!ended_) feed(c.text, true);
    const bool complete = std::string_view(finish_reason(*c.stop)) == "stop";
    Json out = response(complete ? "completed" : "incomplete");
    out.replace("output", Json(items_));
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
    Json created, progress;
    created.set("response", response("in_progress")), progress.set("response", response("in_progress"));
    std::string out = event("response.created", created);  // numbered one after the other
    return out += event("response.in_progress", progress);
  }

  std::string piece(size_t, const AnswerEvent& e, const std::vector<Choice>&) override {
    return feed(e.text, e.stop.has_value());
  }

  std::string closing(const std::vector<Choice>& choices) override {
    Json all, final_response = whole(choices);
    const bool complete = *final_response.find("status")->text() == "completed";
    all.set("response", std::move(final_response));
    return event(complete ? "response.completed" : "response.incomplete", all);
  }

 private:
  std::string feed(const std::string& text, bool last) {
    std::vector<ReplyPart> parts = parser_.push(text);
    if (last) {
      for (ReplyPart& rest : parser_.finish()) parts.push_back(std::move(rest));
    }
    std::string out;
    for (const ReplyPart& p : parts) out += add(p);
    if (!last) return out;
    ended_ = true;
    if (items_.empty() && !open_) out += start(Kind::content);
    return out + close();
  }

  std::string add(const ReplyPart& p) {
    if (p.kind != Kind::call && p.text.empty()) return {};
    std::string out;
    if (p.kind == Kind::call) {
      out = close();
      return out += whole_call(p.call);
    }
    if (open_ && kind_ != p.kind) out += close();
    if (!open_) out += start(p.kind);
    text_ += p.text;
    Json delta = at_part();
    delta.set("delta", p.text);
    if (kind_ == Kind::content) delta.set("logprobs", Json(Json::Array{}));
    return out +
           event(kind_ == Kind::content ? "response.output_text.delta" : "response.reasoning_text.delta",
                 delta);
  }

  std::string start(Kind kind) {
    open_ = true, kind_ = kind, text_.clear(), item_id_ = new_id(kind == Kind::content ? "msg_" : "rs_");
    Json added = at_item(), content = at_part();
    added.set("item", item("in_progress", Json(Json::Array{}))), content.set("part", part());
    std::string out = event("response.output_item.added", added);
    return out += event("response.content_part.added", content);
  }

  std::string close() {
    if (!std::exchange(open_, false)) return {};
    Json done = at_part(), content = at_part(), whole_item = item("completed", Json(Json::Array{part()}));
    done.set("text", text_), content.set("part", part());
    if (kind_ == Kind::content) done.set("logprobs", Json(Json::Array{}));
    std::string out =
        event(kind_ == Kind::content ? "response.output_text.done" : "response.reasoning_text.done", done);
    out += event("response.content_part.done", content);
    return out += finish(std::move(whole_item));
  }

  std::string whole_call(const ToolCall& call) {
    item_id_ = new_id("fc_");
    const auto with = [&](const char* status, const std::string& arguments) {
      Json out;
      out.set("id", item_id_), out.set("type", "function_call"), out.set("status", status);
      out.set("call_id", call.id), out.set("name", call.name), out.set("arguments", arguments);
      return out;
    };
    Json added = at_item(), delta = at_item(), done = at_item();
    added.set("item", with("in_progress", ""));
    delta.set("item_id", item_id_), delta.set("delta", call.arguments);
    done.set("item_id", item_id_), done.set("name", call.name), done.set("arguments", call.arguments);
    std::string out = event("response.output_item.added", added);
    out += event("response.function_call_arguments.delta", delta);
    out += event("response.function_call_arguments.done", done);
    return out + finish(with("completed", call.arguments));
  }

  std::string finish(Json whole_item) {
    Json done = at_item();
    done.set("item", whole_item);
    items_.push_back(std::move(whole_item));
    return event("response.output_item.done", done);
  }

  Json at_item() const {
    Json out;
    out.set("output_index", int64_t(items_.size()));
    return out;
  }

  Json at_part() const {
    Json out = at_item();
    out.set("item_id", item_id_), out.set("content_index", 0);
    return out;
  }

  Json part() const {
    Json out;
    out.set("type", kind_ == Kind::content ? "output_text" : "reasoning_text"), out.set("text", text_);
    if (kind_ == Kind::content) out.set("annotations", Json(Json::Array{}));
    return out;
  }

  Json item(const char* status, Json content) const {
    Json out;
    out.set("id", item_id_), out.set("type", kind_ == Kind::content ? "message" : "reasoning");
    out.set("status", status);
    if (kind_ == Kind::content) {
      out.set("role", "assistant");
    } else {
      out.set("summary", Json(Json::Array{}));
    }
    out.set("content", std::move(content));
    return out;
  }

  Json response(const char* status) const {
    Json out;
    out.set("id", id_), out.set("object", "response"), out.set("created_at", int64_t(created_));
    out.set("status", status), out.set("model", service_.model_id), out.set("output", Json(Json::Array{}));
    out.set("error", Json()), out.set("incomplete_details", Json()), out.set("instructions", Json());
    out.set("metadata", Json(Json::Object{})), out.set("parallel_tool_calls", tools_.parallel);
    out.set("tool_choice", tools_.choice), out.set("tools", tools_.given), out.set("store", false);
    return out;
  }

  std::string event(const char* name, Json data) {
    data.set("type", name), data.set("sequence_number", number_++);
    return sse(name, data);
  }

  const Service& service_;
  ReplyParser parser_;
  const ResponseTools tools_;
  Json::Array items_;  // that are whole
  bool open_ = false, ended_ = false;
  Kind kind_ = Kind::content;  // of the item under way
  std::string item_id_, text_;
  int64_t number_ = 0;
  const std::string id_ = new_id("resp_");
  const std::time_t created_ = std::time(nullptr);
};

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
  for (const char* name : {"previous_response_id", "conversation", "reasoning", "background"}) {
    if (fields.find(name))
      refuse_unsupported(fields.at(name), std::string(name) + ", which is not supported");
  }
  ReplyFields reply;
  reply.constrained = read_text_format(fields, *call.service.formats, request.generate);
  ResponseTools tools = read_response_tools(fields);
  reply.tools = std::move(tools.fields);
  const Conversation conversation{.messages = read_input(fields),
                                  .tools = reply.tools.tools,
                                  .variables = call.service.variables,
                                  .now = std::time(nullptr)};
  fields.finish();
  const ChatPrompt& chat = need_chat(call.service);
  const std::string prompt = chat.text(conversation);
  request.prompt = chat.encode(prompt);
  const ReplyParser::Options parser =
      prepare_reply(chat, prompt, std::move(reply), *call.service.formats, request.generate);
  answer_with(call, {std::move(request)}, std::make_unique<ResponseStyle>(call.service, parser, tools),
              stream);
}

}  // namespace plumb::server
