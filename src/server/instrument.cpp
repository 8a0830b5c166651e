#include "server/instrument.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "server/aside.h"
#include "server/embeddings.h"
#include "server/openai.h"

namespace plumb::server {
namespace {

constexpr size_t kMaxNameBytes = 256;

std::vector<std::string> read_names(Fields& fields, const Json& list) {
  if (!list.array() || list.array()->empty() || list.array()->size() > size_t(kMaxInstrumentPatterns))
    fields.refuse("values", fmt::format("an array of 1 to {} names", kMaxInstrumentPatterns));
  std::vector<std::string> names;
  for (const Json& name : *list.array()) {
    if (!name.text() || name.text()->empty() || name.text()->size() > kMaxNameBytes) {
      refuse_field(fmt::format("{}/{}", fields.at("values"), names.size()),
                   fmt::format("a name of 1 to {} bytes", kMaxNameBytes), "another value");
    }
    names.push_back(*name.text());
  }
  return names;
}

std::string read_word(Fields& fields, const char* name, std::initializer_list<const char*> words) {
  const std::string word = fields.text(name).value_or(*words.begin());
  if (std::find(words.begin(), words.end(), word) != words.end()) return word;
  std::string expected;
  for (const char* w : words) expected += (expected.empty() ? "" : ", ") + std::string(w);
  fields.refuse(name, expected, printable(word));
}

std::vector<int> read_layers(Fields& fields, const Json& list, int n_layer) {
  std::vector<int> layers;
  const std::string expected = fmt::format("an array of layers from 0 to {}", n_layer - 1);
  if (!list.array() || list.array()->size() > size_t(n_layer)) fields.refuse("layers", expected);
  for (const Json& layer : *list.array()) {
    const auto n = layer.integer();
    if (!n || *n < 0 || *n >= n_layer) fields.refuse("layers", expected);
    layers.push_back(int(*n));
  }
  return layers;
}

void check_length(int64_t tokens, const Service& service, std::string pointer) {
  const int64_t most = std::min(kMaxInstrumentTokens, service.scheduler.n_ctx());
  if (tokens > most)
    refuse_field(std::move(pointer), fmt::format("at most {} tokens, steps included", most),
                 std::to_string(tokens));
}

// One of prompt, tokens and messages.
std::vector<int> read_input(Fields& fields, const Service& service, int steps) {
  const Json *text = fields.find("prompt"), *ids = fields.find("tokens"), *messages = fields.find("messages");
  const int given = (text != nullptr) + (ids != nullptr) + (messages != nullptr);
  if (given != 1)
    fields.refuse("prompt", "one of prompt, tokens and messages", given == 0 ? "none" : "several");
  if (!messages && fields.find("chat_template_kwargs"))
    fields.refuse("chat_template_kwargs", "messages beside it", "none");
  if (text && !text->text()) fields.refuse("prompt", "a text");
  if (ids && !ids->array()) fields.refuse("tokens", "an array of ids");
  const char* name = text ? "prompt" : ids ? "tokens" : "messages";
  const std::vector<int> tokens = messages ? need_chat(service).tokens(read_conversation(fields, service))
                                           : read_prompt(service, text ? *text : *ids, fields.at(name));
  check_length(int64_t(tokens.size()) + steps, service, fields.at(name));
  return tokens;
}

Json rows_json(const HiddenRows& found, bool as_base64) {
  if (as_base64) return base64(found.numbers);
  Json::Array rows;
  for (auto at = found.numbers.begin(); at != found.numbers.end(); at += found.size)
    rows.push_back(Json(Json::Array(at, at + found.size)));
  return rows;
}

Json hidden_json(const Hidden& hidden, bool as_base64) {
  Json::Array data;
  for (const std::vector<HiddenRows>& text : hidden) {
    Json one;
    Json::Array values;
    for (const HiddenRows& found : text) {
      Json value;
      value.set("value", found.value);
      value.set("shape", Json::Array{int64_t(found.numbers.size()) / found.size, found.size});
      value.set("rows", rows_json(found, as_base64));
      values.push_back(std::move(value));
    }
    one.set("object", "hidden"), one.set("index", int64_t(data.size()));
    one.set("values", std::move(values));
    data.push_back(std::move(one));
  }
  return data;
}

// Answers with the text that the work makes.
void answer_aside(Call& call, Instrument::Work<std::string> work) {
  call.service.aside->submit(call.scope, call.reply,
                             [reply = call.reply, work = std::move(work)](std::atomic<bool>& gone) {
                               reply->send({200, work(gone)});
                             });
}

}  // namespace

void handle_trace(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  TraceOrder order;
  order.steps = int(fields.integer("steps", 0, 0, kMaxInstrumentSteps));
  if (const Json* values = fields.find("values")) order.values = read_names(fields, *values);
  if (const Json* layers = fields.find("layers"))
    order.layers = read_layers(fields, *layers, call.service.model.program().n_layer);
  order.level = read_word(fields, "level", {"stats", "sketch", "full"});
  order.arith = read_word(fields, "arith", {"fast", "ref32", "ref64"});
  order.tokens = read_input(fields, call.service, order.steps);
  fields.finish();
  answer_aside(call, call.service.instrument->trace(order));
}

void handle_compare(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const Json& trace = fields.need("trace");
  if (!trace.object()) fields.refuse("trace", "an object");
  fields.finish();
  answer_aside(call, call.service.instrument->compare(trace));
}

void handle_hidden(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const bool as_base64 = read_word(fields, "encoding_format", {"float", "base64"}) == "base64";
  const std::string pooling = read_word(fields, "pooling", {"none", "mean", "last"});
  HiddenOrder order{.pooling = pooling == "mean"   ? HiddenPooling::mean
                               : pooling == "last" ? HiddenPooling::last
                                                   : HiddenPooling::none};
  order.values = read_names(fields, fields.need("values"));
  order.texts = read_texts(fields, call.service);
  fields.finish();
  int64_t tokens = 0;
  for (const std::vector<int>& ids : order.texts) tokens += int64_t(ids.size());
  check_length(tokens, call.service, fields.at("input"));
  answer_aside(call, [work = call.service.instrument->hidden(std::move(order)), as_base64, tokens,
                      head = envelope(call.service, new_id("hidden-"), "list", std::time(nullptr))](
                         std::atomic<bool>& gone) {
    Json out = head, usage;
    usage.set("prompt_tokens", tokens), usage.set("total_tokens", tokens);
    out.set("data", hidden_json(work(gone), as_base64)), out.set("usage", std::move(usage));
    return dump(out);
  });
}

}  // namespace plumb::server
