// POST /v1/completions, with echo and log probabilities of the prompt: what evaluation harnesses score with.
#include "server/completions.h"

namespace plumb::server {
namespace {

constexpr size_t kMaxPrompts = 64;

int64_t characters(const std::string& text) {
  int64_t n = 0;
  for (char c : text) n += (c & 0xC0) != 0x80;
  return n;
}

class TextStyle : public Style {
 public:
  TextStyle(const Service& service, TextRun asked)
      : service_(service), asked_(std::move(asked)), scores_{service.model.tokenizer(), asked_.own.margin} {}

  Json whole(const std::vector<Choice>& choices) override {
    Json out = envelope(service_, id_, "text_completion", created_);
    Json::Array list;
    for (size_t i = 0; i < choices.size(); ++i) {
      const Choice& c = choices[i];
      const size_t p = i / size_t(asked_.n);
      std::vector<ScoredToken> tokens;
      if (asked_.echo) tokens = echoed_tokens(p, choices[p * size_t(asked_.n)]);
      tokens.insert(tokens.end(), c.tokens.begin(), c.tokens.end());
      list.push_back(
          choice(i, (asked_.echo ? asked_.echoed[p] : "") + c.text, tokens, 0, finish_reason(*c.stop)));
    }
    out.set("choices", std::move(list)), out.set("usage", usage_json(choices, asked_.n));
    out.set("timings", timings_json(choices[0].times));
    return out;
  }

  std::string piece(size_t i, const AnswerEvent& event, const std::vector<Choice>& choices) override {
    const size_t p = i / size_t(asked_.n);
    std::string text = event.text;
    std::vector<ScoredToken> tokens = event.tokens;
    const std::string before = choices[i].text.substr(0, choices[i].text.size() - event.text.size());
    int64_t offset = characters(before) + (asked_.echo ? characters(asked_.echoed[p]) : 0);
    if (event.first && asked_.echo) {
      text = asked_.echoed[p] + text, offset = 0;
      std::vector<ScoredToken> prompt = echoed_tokens(p, choices[p * size_t(asked_.n)]);
      tokens.insert(tokens.begin(), prompt.begin(), prompt.end());
    }
    if (text.empty() && !event.stop && (asked_.top < 0 || tokens.empty())) return {};
    Json out = envelope(service_, id_, "text_completion", created_);
    out.set("choices", Json(Json::Array{choice(i, text, tokens, offset,
                                               event.stop ? Json(finish_reason(*event.stop)) : Json())}));
    if (asked_.stream.usage) out.set("usage", Json());
    if (event.stop) out.set("timings", timings_json(event.times));
    return sse(out);
  }

  std::string closing(const std::vector<Choice>& choices) override {
    std::string out;
    if (asked_.stream.usage) {
      Json last = envelope(service_, id_, "text_completion", created_);
      last.set("choices", Json(Json::Array{})), last.set("usage", usage_json(choices, asked_.n));
      out = sse(last);
    }
    return out + "data: [DONE]\n\n";
  }

 private:
  // The prompt's tokens, of which those from echo_from on have been scored.
  std::vector<ScoredToken> echoed_tokens(size_t p, const Choice& c) const {
    std::vector<ScoredToken> all;
    const std::vector<int>& ids = asked_.prompts[p];
    for (size_t i = 0; i < ids.size() - std::min(ids.size(), c.prompt.size()); ++i)
      all.push_back({.id = ids[i]});
    all.insert(all.end(), c.prompt.begin(), c.prompt.end());
    return all;
  }

  Json choice(size_t i, const std::string& text, const std::vector<ScoredToken>& tokens, int64_t offset,
              Json reason) const {
    Json out;
    out.set("index", int64_t(i)), out.set("text", text);
    out.set("logprobs", asked_.top < 0 ? Json() : logprobs(tokens, offset));
    out.set("finish_reason", std::move(reason));
    return out;
  }

  Json logprobs(const std::vector<ScoredToken>& list, int64_t offset) const {
    Json::Array tokens, values, tops, offsets, margins;
    for (const ScoredToken& t : list) {
      const std::string text = scores_.token(t.id);
      tokens.push_back(text), offsets.push_back(offset);
      offset += characters(text);
      values.push_back(t.scored ? Json(t.logprob) : Json());
      margins.push_back(t.scored ? Json(t.margin) : Json());
      Json top;
      if (t.scored) top = Json(Json::Object{});
      for (const auto& [id, logprob] : t.top) {
        if (!top.find(scores_.token(id))) top.set(scores_.token(id), logprob);
      }
      tops.push_back(std::move(top));
    }
    Json out;
    out.set("tokens", std::move(tokens)), out.set("token_logprobs", std::move(values));
    out.set("top_logprobs", std::move(tops)), out.set("text_offset", std::move(offsets));
    if (asked_.own.margin) out.set("margin", std::move(margins));
    return out;
  }

  const Service& service_;
  const TextRun asked_;
  const ScoreText scores_;
  const std::string id_ = new_id("cmpl-");
  const std::time_t created_ = std::time(nullptr);
};

// A text, ids, or an array of either.
void read_prompts(Fields& fields, const Service& service, TextRun& asked) {
  const Json& prompt = fields.need("prompt");
  const Json::Array* many = prompt.array();
  if (many && (many->empty() || (*many)[0].integer())) many = nullptr;
  const size_t count = many ? many->size() : 1;
  if (count > kMaxPrompts) fields.refuse("prompt", "at most 64 prompts", std::to_string(count));
  for (size_t i = 0; i < count; ++i) {
    const Json& one = many ? (*many)[i] : prompt;
    const std::string pointer = fields.at("prompt") + (many ? "/" + std::to_string(i) : "");
    asked.prompts.push_back(read_prompt(service, one, pointer));
    asked.echoed.push_back(one.text() ? *one.text()
                                      : service.model.tokenizer().decode(asked.prompts.back(), true));
  }
}

}  // namespace

std::vector<AnswerRequest> TextRun::requests() const {
  std::vector<AnswerRequest> out;
  AnswerRequest one = request;
  for (const std::vector<int>& prompt : prompts) {
    one.prompt = prompt;
    repeat(out, one, n);
  }
  return out;
}

TextRun read_text_run(const Json& body, const Service& service, const std::string& pointer) {
  Fields fields(body, pointer);
  check_model(fields, service);
  TextRun run{.stream = read_stream_fields(fields), .own = read_own_fields(fields)};
  run.request = read_answer_fields(fields, service);
  if (!fields.find("max_tokens") && !fields.find("n_predict"))
    run.request.generate.n_predict = 16;  // OpenAI's default
  run.n = int(fields.integer("n", 1, 1, 8));
  run.top = int(fields.integer("logprobs", run.own.margin ? 0 : -1, 0, 20));
  run.echo = fields.boolean("echo", false);
  if (const Json* best = fields.find("best_of"); best && best->integer() != run.n)
    refuse_unsupported(fields.at("best_of"), "best_of other than n");
  if (fields.find("suffix")) refuse_unsupported(fields.at("suffix"), "suffix");
  accept_idle_fields(fields);
  read_output_format(fields, *service.formats, run.request.generate);
  read_prompts(fields, service, run);
  fields.finish();
  run.request.top = run.top;
  if (run.echo && run.top >= 0) run.request.score_from = std::max<int64_t>(1, run.own.echo_from);
  return run;
}

std::unique_ptr<Style> text_style(const Service& service, TextRun run) {
  return std::make_unique<TextStyle>(service, std::move(run));
}

void handle_completions(Call& call) {
  TextRun run = read_text_run(call.body, call.service);
  const bool stream = run.stream.stream;
  std::vector<AnswerRequest> requests = run.requests();
  answer_with(call, std::move(requests), text_style(call.service, std::move(run)), stream);
}

}  // namespace plumb::server
