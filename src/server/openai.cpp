#include "server/openai.h"

#include <cstring>

namespace plumb::server {
namespace {

Json bytes_json(const std::string& text) {
  Json::Array bytes;
  for (char c : text) bytes.push_back(int(static_cast<unsigned char>(c)));
  return bytes;
}

}  // namespace

StreamFields read_stream_fields(Fields& fields) {
  StreamFields out{.stream = fields.boolean("stream", false)};
  if (const Json* v = fields.find("stream_options")) {
    Fields options(*v, fields.at("stream_options"));
    if (!out.stream) fields.refuse("stream_options", "stream: true beside it", "none");
    out.usage = options.boolean("include_usage", false);
    options.only("include_obfuscation", false, "false");
    options.finish();
  }
  return out;
}

void accept_idle_fields(Fields& fields) {
  fields.find("user"), fields.find("metadata");
  fields.only("store", false, "false");
  fields.only("service_tier", "auto", "\"auto\"");
}

OwnFields read_own_fields(Fields& fields) {
  OwnFields out;
  const Json* v = fields.find("plumb");
  if (!v) return out;
  Fields own(*v, fields.at("plumb"));
  out.margin = own.boolean("margin", false);
  out.echo_from = own.integer("echo_from", 0, 0, int64_t(1) << 40);
  for (const auto& [name, route] :
       {std::pair("receipt", "record"), {"logit_hash", "record"}, {"hidden", "hidden"}}) {
    if (own.find(name))
      refuse_unsupported(own.at(name), std::string(name) + ", which /plumb/" + route + " gives");
  }
  own.finish();
  return out;
}

void repeat(std::vector<AnswerRequest>& requests, const AnswerRequest& request, int n) {
  for (int i = 0; i < n; ++i) {
    requests.push_back(request);
    requests.back().choice = uint64_t(i);
    if (i > 0) requests.back().score_from = -1;
  }
}

Json ScoreText::entry(const ScoredToken& t) const {
  const auto one = [&](int id, double logprob) {
    Json e;
    const std::string text = token(id);
    e.set("token", text), e.set("logprob", logprob), e.set("bytes", bytes_json(text));
    return e;
  };
  Json out = one(t.id, t.logprob);
  if (margin) out.set("margin", t.margin);
  Json::Array top;
  for (const auto& [id, logprob] : t.top) top.push_back(one(id, logprob));
  out.set("top_logprobs", std::move(top));
  return out;
}

Json envelope(const Service& service, const std::string& id, const char* object, std::time_t created) {
  Json out;
  out.set("id", id), out.set("object", object), out.set("created", int64_t(created));
  out.set("model", service.model_id), out.set("system_fingerprint", service.fingerprint);
  return out;
}

std::string base64(std::span<const float> floats) {
  constexpr std::string_view letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> bytes(floats.size_bytes());
  std::memcpy(bytes.data(), floats.data(), bytes.size());
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t three = 0;
    for (size_t k = 0; k < 3; ++k) three = three << 8 | (i + k < bytes.size() ? bytes[i + k] : 0u);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? letters[three >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

}  // namespace plumb::server
