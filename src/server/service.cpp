#include "server/service.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <random>

#include "base/error.h"
#include "engine/settings.h"

namespace plumb::server {
namespace {

constexpr size_t kMaxStops = 16, kMaxStopBytes = 256, kMaxBiases = 1024, kMaxFilters = 32, kMaxBreakers = 64;

std::vector<std::string> read_stops(Fields& fields, const char* name) {
  const Json* v = fields.find(name);
  std::vector<std::string> stops;
  if (!v) return stops;
  if (v->text()) {
    stops.push_back(*v->text());
  } else if (v->array()) {
    for (const Json& s : *v->array()) {
      if (!s.text()) fields.refuse(name, "a text or an array of texts");
      stops.push_back(*s.text());
    }
  } else {
    fields.refuse(name, "a text or an array of texts");
  }
  if (stops.size() > kMaxStops) fields.refuse(name, fmt::format("at most {} texts", kMaxStops));
  for (const std::string& s : stops) {
    if (s.empty() || s.size() > kMaxStopBytes)
      fields.refuse(name, fmt::format("texts of 1 to {} bytes", kMaxStopBytes));
  }
  return stops;
}

// OpenAI's {"id": bias} and llama.cpp's [[id, bias]]; false stands for "never".
void read_biases(Fields& fields, const Service& service, SamplerOptions& sampler) {
  const Json* v = fields.find("logit_bias");
  if (!v) return;
  const auto add = [&](int64_t id, const Json& bias) {
    const auto b = bias.number();
    if (id < 0 || id >= service.model.n_vocab())
      fields.refuse("logit_bias", "ids of the vocabulary", std::to_string(id));
    if (!b && bias.boolean() != false) fields.refuse("logit_bias", "numbers, or false");
    sampler.logit_bias.push_back({int(id), b ? *b : -1e6});
  };
  if (v->object()) {
    for (const auto& [key, bias] : *v->object()) {
      int64_t id = -1;
      const auto [at, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || at != key.data() + key.size())
        fields.refuse("logit_bias", "ids as keys", printable(key));
      add(id, bias);
    }
  } else if (v->array()) {
    for (const Json& pair : *v->array()) {
      if (!pair.array() || pair.array()->size() != 2 || !(*pair.array())[0].integer())
        fields.refuse("logit_bias", "pairs of id and number");
      add(*(*pair.array())[0].integer(), (*pair.array())[1]);
    }
  } else {
    fields.refuse("logit_bias", "an object of ids and numbers");
  }
  if (sampler.logit_bias.size() > kMaxBiases)
    fields.refuse("logit_bias", fmt::format("at most {} ids", kMaxBiases));
}

void read_settings(Fields& fields, GenerateOptions& options, bool random_seed) {
  const auto read = [&](std::string_view name, const Setting& setting) {
    const Json* v = fields.find(name);
    if (!v) return false;
    const auto n = v->number();
    if (!n) fields.refuse(name, "a number");
    // Whole numbers just above 2^53 become 2^53 as doubles.
    if (const auto whole = v->integer(); whole && std::fabs(*n) == 0x1p53 && *whole != int64_t(*n))
      fields.refuse(name, "a number of at most 53 bits", std::to_string(*whole));
    // A seed below 0 asks for one to be drawn, as in llama.cpp.
    if (setting.name == "seed" && *n < 0) return false;
    try {
      set_setting(options, setting, *n);
    } catch (const Error& e) {
      fields.refuse(name, e.expected(), e.found());
    }
    return true;
  };
  for (const Setting& setting : settings()) {
    if (!read(setting.name, setting) && setting.name == "seed" && random_seed)
      options.sampler.seed = std::random_device()();
  }
  for (const char* other : {"max_tokens", "max_completion_tokens"}) read(other, *find_setting(other));
}

void read_texts(Fields& fields, std::string_view name, const char* expected, size_t most,
                std::vector<std::string>& out) {
  const Json* v = fields.find(name);
  if (!v) return;
  if (!v->array()) fields.refuse(name, expected);
  if (v->array()->size() > most) fields.refuse(name, fmt::format("at most {}", most), "more");
  out.clear();
  for (const Json& text : *v->array()) {
    if (!text.text()) fields.refuse(name, expected);
    if (text.text()->size() > kMaxStopBytes)
      fields.refuse(name, fmt::format("texts of at most {} bytes", kMaxStopBytes));
    out.push_back(*text.text());
  }
}

}  // namespace

std::string new_id(const char* prefix) {
  std::random_device random;
  std::string id = prefix;
  for (int i = 0; i < 4; ++i) id += fmt::format("{:08x}", random());
  return id;
}

void check_model(Fields& fields, const Service& service) {
  const auto name = fields.text("model");
  if (!name || *name == service.model_id) return;
  throw Error({.code = "request.model",
               .expected = fmt::format("the model \"{}\"", service.model_id),
               .found = printable(*name),
               .where = {.key = fields.at("model")}});
}

AnswerRequest read_answer_fields(Fields& fields, const Service& service, const char* stops) {
  AnswerRequest r{.prompt = {}, .generate = service.defaults, .hear = {}};
  read_settings(fields, r.generate, service.random_seed);
  r.generate.stops = read_stops(fields, stops);
  read_biases(fields, service, r.generate.sampler);
  r.generate.ignore_eos = fields.boolean("ignore_eos", r.generate.ignore_eos);
  r.cache_prompt = fields.boolean("cache_prompt", service.cache_prompt);
  read_texts(fields, "samplers", "an array of names", kMaxFilters, r.generate.sampler.chain);
  read_texts(fields, "dry_sequence_breakers", "an array of texts", kMaxBreakers,
             r.generate.sampler.dry_sequence_breakers);
  return r;
}

const ChatPrompt& need_chat(const Service& service) {
  if (service.chat) return *service.chat;
  throw Error({.code = "server.not_supported",
               .expected = "a model with a chat template",
               .found = "one without",
               .remedy = "start the server with --chat-template-file"});
}

std::vector<int> read_prompt(const Service& service, const Json& prompt, const std::string& pointer) {
  std::vector<int> ids;
  if (prompt.text()) {
    const size_t most = size_t(service.scheduler.n_ctx()) * 64;
    if (prompt.text()->size() > most) refuse_field(pointer, fmt::format("at most {} bytes", most), "more");
    ids = service.model.tokenizer().encode(*prompt.text(), {.add_special = true, .parse_special = true});
  } else if (prompt.array()) {
    for (const Json& id : *prompt.array()) {
      const auto n = id.integer();
      if (!n || *n < 0 || *n >= service.model.n_vocab())
        refuse_field(pointer, fmt::format("ids from 0 to {}", service.model.n_vocab() - 1), "another value");
      ids.push_back(int(*n));
    }
  } else {
    refuse_field(pointer, "a text or an array of ids", "another value");
  }
  if (ids.empty()) refuse_field(pointer, "a prompt of at least one token", "none");
  return ids;
}

Json timings_json(const AnswerTimes& t) {
  Json out;
  out.set("cache_n", t.cached_tokens);
  const auto part = [&](const char* name, int64_t n, double seconds) {
    const std::string p = name;
    out.set(p + "_n", n), out.set(p + "_ms", seconds * 1e3);
    out.set(p + "_per_token_ms", n > 0 ? seconds * 1e3 / double(n) : 0);
    out.set(p + "_per_second", seconds > 0 ? double(n) / seconds : 0);
  };
  part("prompt", t.prompt_tokens - t.cached_tokens, t.prompt_seconds);
  part("predicted", t.answer_tokens, t.answer_seconds);
  if (t.miss_position >= 0) {
    Json miss;
    miss.set("position", t.miss_position), miss.set("expected", t.miss_expected), miss.set("got", t.miss_got);
    out.set("cache_miss", std::move(miss));
  }
  return out;
}

}  // namespace plumb::server
