// POST /plumb/record and /plumb/replay: a completion with its receipt, and a receipt run again.
#include "engine/settings.h"
#include "server/aside.h"
#include "server/completions.h"
#include "server/receipt.h"

namespace plumb::server {
namespace {

// The request with everything that it leaves to the server's flags, and without what does not change the
// answer.
Json whole_request(const Json& body, const AnswerRequest& r) {
  const SamplerOptions& sampler = r.generate.sampler;
  Json out = Json::Object();
  for (const auto& [name, value] : *body.object()) {
    if (name != "model" && name != "stream") out.set(name, value);
  }
  for (const Setting& s : settings()) {
    const double v = setting_value(r.generate, s);
    out.replace(s.name, s.whole ? Json(int64_t(v)) : Json(v));
  }
  out.replace("samplers", Json::Array(sampler.chain.begin(), sampler.chain.end()));
  const std::vector<std::string>& breakers = sampler.dry_sequence_breakers;
  out.replace("dry_sequence_breakers", Json::Array(breakers.begin(), breakers.end()));
  out.replace("ignore_eos", r.generate.ignore_eos);
  Json::Array biases;
  for (const auto& [id, bias] : sampler.logit_bias) biases.push_back(Json::Array{id, bias});
  out.replace("logit_bias", std::move(biases));
  return out;
}

class RecordStyle : public Style {
 public:
  RecordStyle(const Service& service, TextRun run, Receipt receipt)
      : service_(service),
        requests_(run.requests()),
        receipt_(std::move(receipt)),
        text_(text_style(service, std::move(run))) {}

  Json whole(const std::vector<Choice>& choices) override {
    receipt_.answers = recorded(requests_, choices);
    Json out;
    out.set("completion", text_->whole(choices)), out.set("receipt", receipt_json(receipt_, service_));
    return out;
  }
  std::string piece(size_t, const AnswerEvent&, const std::vector<Choice>&) override { return {}; }
  std::string closing(const std::vector<Choice>&) override { return {}; }

 private:
  const Service& service_;
  const std::vector<AnswerRequest> requests_;
  Receipt receipt_;
  const std::unique_ptr<Style> text_;
};

Json verdict(const Json& difference, const Receipt& receipt) {
  int64_t tokens = 0;
  for (const RecordedAnswer& a : receipt.answers) tokens += int64_t(a.tokens.size());
  Json out;
  out.set("same", difference.is_null()), out.set("answers", int64_t(receipt.answers.size()));
  out.set("tokens", tokens), out.set("difference", difference);
  return out;
}

class ReplayStyle : public Style {
 public:
  ReplayStyle(std::vector<AnswerRequest> requests, Receipt receipt)
      : requests_(std::move(requests)), receipt_(std::move(receipt)) {}

  Json whole(const std::vector<Choice>& choices) override {
    return verdict(first_difference(receipt_.answers, recorded(requests_, choices)), receipt_);
  }
  std::string piece(size_t, const AnswerEvent&, const std::vector<Choice>&) override { return {}; }
  std::string closing(const std::vector<Choice>&) override { return {}; }

 private:
  const std::vector<AnswerRequest> requests_;
  const Receipt receipt_;
};

// Goes on with the hash of the model's file: here, or once it has been read.
void with_hash(const Call& call, std::function<void(const Call&, const std::string& sha256)> go) {
  FileHash& file = *call.service.file_hash;
  if (const auto hash = file.known()) return go(call, *hash);
  auto later = std::make_shared<Call>(
      Call{.service = call.service, .request = {}, .reply = call.reply, .scope = call.scope});
  call.service.aside->submit(
      call.scope, call.reply,
      [later, &file, go = std::move(go)](std::atomic<bool>& gone) { go(*later, file.compute(gone)); });
}

Json unlike(const char* what, const std::string& then, const std::string& now) {
  Json out;
  out.set("what", what), out.set("recorded", then), out.set("here", now);
  return out;
}

// What shows without a run: another model, other arithmetic. Null: nothing.
Json other_engine(const Receipt& r, const Service& service, const std::string& sha256) {
  if (r.sha256 != sha256) return unlike("model.sha256", r.sha256, sha256);
  if (r.fingerprint == service.fingerprint) return {};
  return unlike("system_fingerprint", r.fingerprint, service.fingerprint);
}

// Before anything runs: the texts to which the answers were.
Json other_prompts(const Receipt& r, const std::vector<AnswerRequest>& requests) {
  std::vector<RecordedAnswer> then, now;
  for (const RecordedAnswer& a : r.answers) then.push_back({.prompt = a.prompt});
  for (const AnswerRequest& request : requests) now.push_back({.prompt = request.prompt});
  return first_difference(then, now);
}

void replay(const Call& call, const Receipt& receipt, const std::string& sha256) {
  const auto answer = [&](const Json& difference) {
    call.reply->send({200, dump(verdict(difference, receipt))});
  };
  // Of another model not even the request need make sense.
  if (const Json other = other_engine(receipt, call.service, sha256); !other.is_null()) return answer(other);
  // The receipt says all; what this server's flags say must not be added.
  Service neutral = call.service;
  neutral.defaults = {}, neutral.random_seed = false;
  TextRun run = read_text_run(receipt.request, neutral, "/receipt/request");
  if (run.stream.stream) refuse_field("/receipt/request/stream", "false", "true");
  run.request.hash = true;
  const std::vector<AnswerRequest> requests = run.requests();
  if (const Json other = other_prompts(receipt, requests); !other.is_null()) return answer(other);
  answer_with(call, requests, std::make_unique<ReplayStyle>(requests, receipt), false);
}

}  // namespace

void handle_record(Call& call) {
  TextRun run = read_text_run(call.body, call.service);
  if (run.stream.stream) refuse_field("/stream", "false: the receipt comes at the end", "true");
  run.request.hash = true;
  Receipt receipt{.request = whole_request(call.body, run.request), .fingerprint = call.service.fingerprint};
  with_hash(
      call, [run = std::move(run), receipt = std::move(receipt)](const Call& c, const std::string& sha256) {
        Receipt mine = receipt;
        mine.sha256 = sha256;
        answer_with(c, run.requests(), std::make_unique<RecordStyle>(c.service, run, std::move(mine)), false);
      });
}

void handle_replay(Call& call) {
  Fields fields(call.body);
  Receipt receipt = read_receipt(fields.need("receipt"), fields.at("receipt"));
  fields.finish();
  with_hash(call, [receipt = std::move(receipt)](const Call& c, const std::string& sha256) {
    replay(c, receipt, sha256);
  });
}

}  // namespace plumb::server
