#include "server/receipt.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/cancel.h"
#include "base/sha256.h"

namespace plumb::server {
namespace {

Json ids_json(const std::vector<int>& ids) { return Json::Array(ids.begin(), ids.end()); }

std::vector<int> read_ids(Fields& fields, const char* name) {
  const Json& list = fields.need(name);
  if (!list.array()) fields.refuse(name, "an array of ids");
  std::vector<int> ids;
  for (const Json& id : *list.array()) {
    const auto n = id.integer();
    if (!n || *n < 0 || *n > INT32_MAX) fields.refuse(name, "an array of ids");
    ids.push_back(int(*n));
  }
  return ids;
}

RecordedAnswer read_answer(const Json& json, const std::string& pointer) {
  Fields fields(json, pointer);
  RecordedAnswer a{.prompt = read_ids(fields, "prompt"), .tokens = read_ids(fields, "tokens")};
  const Json& logits = fields.need("logits");
  if (!logits.array()) fields.refuse("logits", "an array of texts");
  for (const Json& hash : *logits.array()) {
    if (!hash.text() || hash.text()->size() != 16) fields.refuse("logits", "texts of 16 digits");
    a.logits.push_back(*hash.text());
  }
  a.finish_reason = fields.need_text("finish_reason");
  fields.finish();
  return a;
}

Json difference(const char* what, size_t answer, size_t index, Json then, Json now) {
  Json out;
  out.set("what", what), out.set("answer", int64_t(answer)), out.set("index", int64_t(index));
  out.set("recorded", std::move(then)), out.set("here", std::move(now));
  return out;
}

Json id_at(const std::vector<int>& ids, size_t i) { return i < ids.size() ? Json(ids[i]) : Json(); }

// The first index at which they differ, also by length; none: they are equal.
template <class T>
std::optional<size_t> parting(const std::vector<T>& a, const std::vector<T>& b) {
  const auto [x, y] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (x == a.end() && y == b.end()) return {};
  return size_t(x - a.begin());
}

}  // namespace

std::optional<std::string> FileHash::known() const {
  const std::lock_guard lock(mutex_);
  return hash_.empty() ? std::nullopt : std::optional(hash_);
}

std::string FileHash::compute(const std::atomic<bool>& gone) {
  if (const auto hash = known()) return *hash;
  constexpr size_t kPiece = 1 << 20;
  Sha256Sum sum;
  for (const std::span<const uint8_t> file : model_.file().contents()) {
    for (size_t at = 0; at < file.size(); at += kPiece) {
      stop_if(&gone, "a client that is gone");
      const auto piece = file.subspan(at, std::min(kPiece, file.size() - at));
      sum.add({reinterpret_cast<const char*>(piece.data()), piece.size()});
    }
  }
  const std::lock_guard lock(mutex_);
  return hash_ = hex(sum.digest());
}

Json receipt_json(const Receipt& r, const Service& service) {
  Json out, model;
  Json::Array answers;
  for (const RecordedAnswer& a : r.answers) {
    Json one;
    one.set("prompt", ids_json(a.prompt)), one.set("tokens", ids_json(a.tokens));
    one.set("logits", Json::Array(a.logits.begin(), a.logits.end()));
    one.set("finish_reason", a.finish_reason);
    answers.push_back(std::move(one));
  }
  model.set("name", service.model_id), model.set("bytes", service.model.file().file_bytes());
  model.set("sha256", r.sha256);
  out.set("plumb_receipt", 1), out.set("request", r.request), out.set("model", std::move(model));
  out.set("system_fingerprint", r.fingerprint), out.set("answers", std::move(answers));
  return out;
}

Receipt read_receipt(const Json& json, const std::string& pointer) {
  Fields fields(json, pointer);
  if (fields.need("plumb_receipt").integer() != 1) fields.refuse("plumb_receipt", "1");
  Receipt r;
  r.request = fields.need("request");
  if (!r.request.object()) fields.refuse("request", "an object");
  Fields model(fields.need("model"), fields.at("model"));
  model.find("name"), model.find("bytes");
  r.sha256 = model.need_text("sha256");
  model.finish();
  r.fingerprint = fields.need_text("system_fingerprint");
  const Json& answers = fields.need("answers");
  if (!answers.array()) fields.refuse("answers", "an array");
  for (const Json& answer : *answers.array())
    r.answers.push_back(read_answer(answer, fmt::format("{}/{}", fields.at("answers"), r.answers.size())));
  fields.finish();
  return r;
}

std::vector<RecordedAnswer> recorded(const std::vector<AnswerRequest>& requests,
                                     const std::vector<Choice>& choices) {
  std::vector<RecordedAnswer> out;
  for (size_t i = 0; i < choices.size(); ++i) {
    RecordedAnswer a{.prompt = requests[i].prompt};
    for (const ScoredToken& t : choices[i].tokens) a.tokens.push_back(t.id);
    for (uint64_t hash : choices[i].hashes) a.logits.push_back(fmt::format("{:016x}", hash));
    a.finish_reason = finish_reason(*choices[i].stop);
    out.push_back(std::move(a));
  }
  return out;
}

Json first_difference(std::span<const RecordedAnswer> then, std::span<const RecordedAnswer> now) {
  for (size_t i = 0; i < std::min(then.size(), now.size()); ++i) {
    const RecordedAnswer &a = then[i], &b = now[i];
    if (const auto at = parting(a.prompt, b.prompt))
      return difference("prompt", i, *at, id_at(a.prompt, *at), id_at(b.prompt, *at));
    const auto logits = parting(a.logits, b.logits), token = parting(a.tokens, b.tokens);
    // Logits come before the token that they choose; where one list is only longer, its tokens tell.
    if (logits && *logits < std::min(a.logits.size(), b.logits.size()) && (!token || *logits <= *token))
      return difference("logits", i, *logits, a.logits[*logits], b.logits[*logits]);
    if (token) {
      const bool longer = *token == std::min(a.tokens.size(), b.tokens.size());
      return difference(longer ? "length" : "token", i, *token, id_at(a.tokens, *token),
                        id_at(b.tokens, *token));
    }
    if (logits) return difference("logits", i, *logits, int64_t(a.logits.size()), int64_t(b.logits.size()));
    if (a.finish_reason != b.finish_reason)
      return difference("finish_reason", i, a.tokens.size(), a.finish_reason, b.finish_reason);
  }
  if (then.size() == now.size()) return {};
  return difference("answers", std::min(then.size(), now.size()), 0, int64_t(then.size()),
                    int64_t(now.size()));
}

}  // namespace plumb::server
