#include "server/answers.h"

#include "base/error.h"

namespace plumb::server {
namespace {

// Everything but the constructor runs on the scheduler's thread.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Reply> reply, std::unique_ptr<Style> style, bool stream, size_t answers)
      : reply_(std::move(reply)),
        style_(std::move(style)),
        stream_(stream),
        open_(answers),
        choices_(answers) {}

  void hear(size_t choice, AnswerEvent event) {
    if (failed_) return;
    if (event.stop == Stop::cancelled) {
      event.error =
          std::make_exception_ptr(Error({.code = "server.ending", .found = "the end of the server"}));
    }
    if (event.error) return fail(event.error);
    if (event.read >= 0) {
      if (!begun_) begin();
      return reply_->write(style_->progress(choice, event));
    }
    Choice& c = choices_[choice];
    c.text += event.text;
    c.prompt.insert(c.prompt.end(), event.prompt.begin(), event.prompt.end());
    c.tokens.insert(c.tokens.end(), event.tokens.begin(), event.tokens.end());
    c.hashes.insert(c.hashes.end(), event.hashes.begin(), event.hashes.end());
    c.times = event.times;
    if (event.stop) {
      c.stop = event.stop, c.stop_string = event.stop_string;
      --open_;
    }
    if (stream_ && event.prompt.empty()) {
      if (!begun_) begin();
      reply_->write(style_->piece(choice, event, choices_));
    }
    if (open_ > 0) return;
    if (stream_) {
      reply_->write(style_->closing(choices_));
      reply_->end();
    } else {
      reply_->send({200, dump(style_->whole(choices_))});
    }
    reply_.reset();
  }

 private:
  void begin() {
    begun_ = true;
    reply_->begin(200, "text/event-stream; charset=utf-8", {});
    reply_->write(style_->opening());
  }

  void fail(std::exception_ptr error) {
    failed_ = true;
    const ApiFailure f = describe_failure(error);
    if (begun_) {
      const Json body = error_json(f, style_->api());
      reply_->write(style_->api() == ApiStyle::anthropic ? sse("error", body) : sse(body));
      reply_->end();
    } else {
      reply_->send(error_response(f, style_->api()));
    }
    reply_.reset();
  }

  std::shared_ptr<Reply> reply_;
  std::unique_ptr<Style> style_;
  bool stream_, begun_ = false, failed_ = false;
  size_t open_;
  std::vector<Choice> choices_;
};

}  // namespace

std::string sse(const Json& data) { return "data: " + dump(data) + "\n\n"; }
std::string sse(const char* event, const Json& data) {
  return std::string("event: ") + event + "\n" + sse(data);
}

void answer_with(const Call& call, std::vector<AnswerRequest> requests, std::unique_ptr<Style> style,
                 bool stream) {
  const auto session = std::make_shared<Session>(call.reply, std::move(style), stream, requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    requests[i].scope = call.scope;
    requests[i].hear = [session, i](AnswerEvent e) { session->hear(i, std::move(e)); };
  }
  const auto ticket = call.service.scheduler.submit(std::move(requests));
  call.reply->on_gone([ticket] { ticket->cancel(); });
}

bool read_live_fields(Fields& fields, bool stream, AnswerRequest& request) {
  const bool timings = fields.boolean("timings_per_token", false);
  request.progress = fields.boolean("return_progress", false);
  if (!stream && timings) fields.refuse("timings_per_token", "stream: true beside it", "none");
  if (!stream && request.progress) fields.refuse("return_progress", "stream: true beside it", "none");
  return timings;
}

Json progress_json(const AnswerEvent& event) {
  Json out;
  out.set("total", event.times.prompt_tokens), out.set("cache", event.times.cached_tokens);
  out.set("processed", event.read), out.set("time_ms", event.times.prompt_seconds * 1e3);
  return out;
}

const char* finish_reason(Stop stop) {
  return stop == Stop::end_of_text || stop == Stop::stop_string ? "stop" : "length";
}

Json usage_json(const std::vector<Choice>& choices, int n) {
  int64_t prompt = 0, cached = 0, answer = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    if (i % size_t(n) == 0)
      prompt += choices[i].times.prompt_tokens, cached += choices[i].times.cached_tokens;
    answer += choices[i].times.answer_tokens;
  }
  Json out, details;
  details.set("cached_tokens", cached);
  out.set("prompt_tokens", prompt), out.set("completion_tokens", answer),
      out.set("total_tokens", prompt + answer);
  out.set("prompt_tokens_details", std::move(details));
  return out;
}

}  // namespace plumb::server
