// Receipts: what was asked, of which model, and what came of it bit for bit, so that whoever has one can have
// it repeated. /plumb/record writes them, /plumb/replay checks them.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "server/answers.h"

namespace plumb::server {

/// The SHA-256 of a model's file, of all its parts one after the other.
class FileHash {
 public:
  explicit FileHash(const Model& model) : model_(model) {}

  std::optional<std::string> known() const;
  /// Reads the whole file the first time. Throws Error "run.cancelled" once `gone` is set.
  std::string compute(const std::atomic<bool>& gone);

 private:
  const Model& model_;
  mutable std::mutex mutex_;
  std::string hash_;
};

struct RecordedAnswer {
  std::vector<int> prompt = {}, tokens = {};
  std::vector<std::string> logits =
      {};  // hash_logits() of what chose each token, and the end if a token ended it
  std::string finish_reason = {};
};

struct Receipt {
  Json request = {};  // the body of /v1/completions, with every number that the server's flags decided
  std::string sha256 = {}, fingerprint = {};
  std::vector<RecordedAnswer> answers = {};
};

Json receipt_json(const Receipt& receipt, const Service& service);

/// Throws Error "request.field"; the receipt lies at `pointer`.
Receipt read_receipt(const Json& json, const std::string& pointer);

/// What answers record.
std::vector<RecordedAnswer> recorded(const std::vector<AnswerRequest>& requests,
                                     const std::vector<Choice>& choices);

/// The first thing in which the answers differ, as {"what", "answer", "index", "recorded", "here"}, or null.
Json first_difference(std::span<const RecordedAnswer> then, std::span<const RecordedAnswer> now);

void handle_record(Call& call);
void handle_replay(Call& call);

}  // namespace plumb::server
