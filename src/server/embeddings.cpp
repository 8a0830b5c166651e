// POST /v1/embeddings, as OpenAI's clients speak it: floats, or their bytes in base64.
#include "server/embeddings.h"

#include <fmt/format.h>

#include "base/error.h"
#include "server/openai.h"

namespace plumb::server {
namespace {

constexpr int kPieceTokens = 128;  // between two passes of the answers
constexpr size_t kMaxTexts = 64;

Json embedding_json(size_t index, const std::vector<float>& vector, bool as_base64) {
  Json one;
  one.set("object", "embedding"), one.set("index", int64_t(index));
  if (as_base64) {
    one.set("embedding", base64(vector));
  } else {
    one.set("embedding", Json(Json::Array(vector.begin(), vector.end())));
  }
  return one;
}

}  // namespace

std::vector<std::vector<int>> read_texts(Fields& fields, const Service& service) {
  const Json& input = fields.need("input");
  const Json::Array* many = input.array();
  if (many && (many->empty() || (*many)[0].number())) many = nullptr;
  const size_t count = many ? many->size() : 1;
  if (count > kMaxTexts)
    fields.refuse("input", fmt::format("at most {} texts", kMaxTexts), std::to_string(count));
  std::vector<std::vector<int>> texts;
  for (size_t i = 0; i < count; ++i) {
    texts.push_back(read_prompt(service, many ? (*many)[i] : input,
                                fields.at("input") + (many ? "/" + std::to_string(i) : "")));
  }
  return texts;
}

class Embedder::Job : public std::enable_shared_from_this<Job> {
 public:
  Job(Embedder& owner, std::vector<std::vector<int>> texts, std::shared_ptr<std::atomic<bool>> gone,
      Done done)
      : owner_(owner), texts_(std::move(texts)), gone_(std::move(gone)), done_(std::move(done)) {}
  ~Job() { --owner_.open_; }

  void step() {
    if (*gone_) return;
    try {
      if (owner_.scheduler_.ending())
        throw Error({.code = "server.ending", .found = "the end of the server"});
      if (!now_) now_.emplace(owner_.model_, owner_.runner_, texts_[vectors_.size()], owner_.pooling_);
      if (now_->read(kPieceTokens)) {
        vectors_.push_back(now_->vector());
        now_.reset();
      }
    } catch (...) {
      owner_.scheduler_.note_failure(std::current_exception());
      return done_({}, std::current_exception());
    }
    if (vectors_.size() == texts_.size()) return done_(std::move(vectors_), nullptr);
    owner_.scheduler_.run_between([self = shared_from_this()] { self->step(); });
  }

 private:
  Embedder& owner_;
  const std::vector<std::vector<int>> texts_;
  std::shared_ptr<std::atomic<bool>> gone_;
  Done done_;
  std::optional<Embedding> now_;
  std::vector<std::vector<float>> vectors_;
};

void Embedder::submit(std::vector<std::vector<int>> texts, std::shared_ptr<std::atomic<bool>> gone,
                      Done done) {
  for (const std::vector<int>& ids : texts) check_tokens(model_, ids, 0, scheduler_.n_ctx());
  ++open_;
  const auto job = std::make_shared<Job>(*this, std::move(texts), std::move(gone), std::move(done));
  if (open_ > most_) {
    throw Error({.code = "queue.full",
                 .expected = fmt::format("at most {} requests for embeddings", most_),
                 .found = "a full queue",
                 .remedy = "try again later"});
  }
  scheduler_.run_between([job] { job->step(); });
}

void handle_embeddings(Call& call) {
  Fields fields(call.body);
  check_model(fields, call.service);
  const std::string format = fields.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64")
    fields.refuse("encoding_format", "float or base64", printable(format));
  const int64_t size =
      call.service.model.program().shape(call.service.model.program().find("output_norm")).size();
  fields.integer("dimensions", size, size, size);
  fields.find("user");
  std::vector<std::vector<int>> texts = read_texts(fields, call.service);
  fields.finish();
  int64_t tokens = 0;
  for (const std::vector<int>& ids : texts) tokens += int64_t(ids.size());
  const auto gone = std::make_shared<std::atomic<bool>>(false);
  call.service.embedder->submit(
      std::move(texts), gone,
      [reply = call.reply, model = call.service.model_id, tokens, as_base64 = format == "base64"](
          std::vector<std::vector<float>> vectors, std::exception_ptr error) {
        if (error) return reply->send(error_response(describe_failure(error), ApiStyle::openai));
        Json::Array data;
        for (size_t i = 0; i < vectors.size(); ++i) data.push_back(embedding_json(i, vectors[i], as_base64));
        Json out, usage;
        usage.set("prompt_tokens", tokens), usage.set("total_tokens", tokens);
        out.set("object", "list"), out.set("model", model);
        out.set("data", Json(std::move(data))), out.set("usage", std::move(usage));
        reply->send({200, dump(out)});
      });
  call.reply->on_gone([gone] { *gone = true; });
}

}  // namespace plumb::server
