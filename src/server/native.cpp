// llama.cpp's own routes: /completion, /tokenize, /detokenize, /apply-template.
#include "server/native.h"

#include "base/math.h"
#include "base/utf8.h"
#include "engine/settings.h"
#include "server/openai.h"

namespace plumb::server {
namespace {

struct NativeAsked {
  bool stream = false, tokens = false, margin = false, timings = false;
  bool drawn = false;  // probabilities after the samplers
  std::string prompt;
  GenerateOptions generate;
  int top = -1;
};

class NativeStyle : public Style {
 public:
  NativeStyle(const Service& service, NativeAsked asked)
      : service_(service), asked_(std::move(asked)), scores_{service.model.tokenizer(), asked_.margin} {}

  Json whole(const std::vector<Choice>& choices) override {
    return last(choices[0], choices[0].text, choices[0].tokens);
  }

  std::string piece(size_t, const AnswerEvent& event, const std::vector<Choice>& choices) override {
    if (event.stop) return sse(last(choices[0], event.text, event.tokens));
    if (event.text.empty() && asked_.top < 0) return {};
    Json out;
    out.set("index", 0), out.set("content", event.text), out.set("stop", false);
    out.set("id_slot", -1), out.set("tokens_predicted", int64_t(choices[0].tokens.size()));
    if (asked_.tokens) out.set("tokens", ids(event.tokens));
    if (asked_.top >= 0) out.set("completion_probabilities", probabilities(event.tokens));
    if (asked_.timings) out.set("timings", timings_json(event.times));
    return sse(out);
  }

  std::string progress(size_t, const AnswerEvent& event) override {
    Json out;
    out.set("index", 0), out.set("content", ""), out.set("stop", false), out.set("id_slot", -1);
    out.set("prompt_progress", progress_json(event));
    return sse(out);
  }

  std::string closing(const std::vector<Choice>&) override { return {}; }

 private:
  static Json ids(const std::vector<ScoredToken>& tokens) {
    Json::Array out;
    for (const ScoredToken& t : tokens) out.push_back(t.id);
    return out;
  }

  Json probabilities(const std::vector<ScoredToken>& tokens) const {
    Json::Array out;
    for (const ScoredToken& t : tokens) {
      Json entry = scores_.entry(t);
      Json::Array top;
      const Json::Array& plain = *entry.find("top_logprobs")->array();
      for (size_t i = 0; i < plain.size(); ++i) {
        Json with_id = plain[i];
        with_id.set("id", t.top[i].first);
        top.push_back(std::move(with_id));
      }
      entry.replace("top_logprobs", std::move(top)), entry.set("id", t.id);
      out.push_back(asked_.drawn ? as_drawn(entry) : std::move(entry));
    }
    return out;
  }

  // Probabilities under names of their own, as llama.cpp has them.
  static Json as_drawn(const Json& entry) {
    Json out;
    for (const auto& [name, value] : *entry.object()) {
      if (name == "logprob") {
        out.set("prob", exponential(*value.number()));
      } else if (name == "top_logprobs") {
        Json::Array top;
        for (const Json& each : *value.array()) top.push_back(as_drawn(each));
        out.set("top_probs", std::move(top));
      } else {
        out.set(name, value);
      }
    }
    return out;
  }

  Json last(const Choice& c, const std::string& text, const std::vector<ScoredToken>& tokens) const {
    Json out, used;
    for (const Setting& s : settings()) {
      const double v = setting_value(asked_.generate, s);
      used.set(s.name, s.whole ? Json(int64_t(v)) : Json(v));
    }
    out.set("index", 0), out.set("content", text),
        out.set("tokens", asked_.tokens ? ids(tokens) : Json(Json::Array{}));
    out.set("id_slot", -1), out.set("stop", true), out.set("model", service_.model_id);
    out.set("tokens_predicted", c.times.answer_tokens), out.set("tokens_evaluated", c.times.prompt_tokens);
    out.set("tokens_cached", c.times.cached_tokens), out.set("generation_settings", std::move(used));
    out.set("prompt", asked_.prompt), out.set("truncated", false);
    const Stop stop = *c.stop;
    out.set("stop_type", stop == Stop::end_of_text ? "eos" : stop == Stop::stop_string ? "word" : "limit");
    out.set("stopping_word", c.stop_string), out.set("timings", timings_json(c.times));
    if (asked_.top >= 0) out.set("completion_probabilities", probabilities(tokens));
    return out;
  }

  const Service& service_;
  const NativeAsked asked_;
  const ScoreText scores_;
};

}  // namespace

void handle_completion(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  NativeAsked asked{.stream = fields.boolean("stream", false), .prompt = {}, .generate = {}};
  AnswerRequest request = read_answer_fields(fields, call.service);
  asked.tokens = fields.boolean("return_tokens", false);
  asked.margin = read_own_fields(fields).margin;
  const int64_t top = fields.integer("n_probs", 0, 0, 20);
  asked.top = request.top = top > 0 || asked.margin ? int(top) : -1;
  fields.only("id_slot", -1, "-1: the server chooses");
  asked.drawn = request.drawn = fields.boolean("post_sampling_probs", false);
  if (asked.drawn && asked.margin) fields.refuse("post_sampling_probs", "false with a margin", "true");
  asked.timings = read_live_fields(fields, asked.stream, request);
  read_output_format(fields, *call.service.formats, request.generate);
  const Json& prompt = fields.need("prompt");
  fields.finish();
  request.prompt = read_prompt(call.service, prompt, "/prompt");
  asked.prompt = prompt.text() ? *prompt.text() : call.service.model.tokenizer().decode(request.prompt, true);
  asked.generate = request.generate;
  const bool stream = asked.stream;
  answer_with(call, {std::move(request)}, std::make_unique<NativeStyle>(call.service, std::move(asked)),
              stream);
}

void handle_tokenize(Call& call) {
  Fields fields(call.body);
  const auto content = fields.text("content");
  if (!content) fields.refuse("content", "a text", "none");
  const bool pieces = fields.boolean("with_pieces", false);
  const EncodeOptions options{.add_special = fields.boolean("add_special", false),
                              .parse_special = fields.boolean("parse_special", true)};
  fields.finish();
  const Tokenizer& tokenizer = call.service.model.tokenizer();
  Json::Array tokens;
  for (int id : tokenizer.encode(*content, options)) {
    if (!pieces) {
      tokens.push_back(id);
      continue;
    }
    Json token;
    const std::string text = tokenizer.piece(id, true);
    token.set("id", id);
    if (is_valid_utf8(text)) {
      token.set("piece", text);
    } else {
      Json::Array bytes;
      for (char c : text) bytes.push_back(int(static_cast<unsigned char>(c)));
      token.set("piece", std::move(bytes));
    }
    tokens.push_back(std::move(token));
  }
  Json out;
  out.set("tokens", std::move(tokens));
  call.reply->send({200, dump(out)});
}

void handle_detokenize(Call& call) {
  Fields fields(call.body);
  const Json& tokens = fields.need("tokens");
  fields.finish();
  Json out;
  std::vector<int> ids;
  if (!tokens.array()) refuse_field("/tokens", "an array of ids", "another value");
  if (!tokens.array()->empty()) ids = read_prompt(call.service, tokens, "/tokens");
  out.set("content", call.service.model.tokenizer().decode(ids, true));
  call.reply->send({200, dump(out)});
}

void handle_apply_template(Call& call) {
  Fields fields(call.body);
  Conversation conversation = read_conversation(fields, call.service);
  conversation.add_generation_prompt = fields.boolean("add_generation_prompt", true);
  if (const Json* tools = fields.find("tools")) conversation.tools = *tools;
  fields.finish();
  Json out;
  out.set("prompt", need_chat(call.service).text(conversation));
  call.reply->send({200, dump(out)});
}

}  // namespace plumb::server
