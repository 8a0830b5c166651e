// What OpenAI's chat and text completions have in common.
#pragma once

#include "server/answers.h"

namespace plumb::server {

struct StreamFields {
  bool stream = false, usage = false;
};
StreamFields read_stream_fields(Fields& fields);

/// Fields that clients send and that change nothing here.
void accept_idle_fields(Fields& fields);

/// The `plumb` object: margin, echo_from.
struct OwnFields {
  bool margin = false;
  int64_t echo_from = 0;
};
OwnFields read_own_fields(Fields& fields);

/// Requests for `n` answers, each with draws of its own.
void repeat(std::vector<AnswerRequest>& requests, const AnswerRequest& request, int n);

struct ScoreText {
  const Tokenizer& tokenizer;
  bool margin = false;

  std::string token(int id) const { return tokenizer.piece(id, true); }
  /// {"token", "logprob", "bytes", "top_logprobs"} of chat completions.
  Json entry(const ScoredToken& t) const;
};

/// messages and chat_template_kwargs.
Conversation read_conversation(Fields& fields, const Service& service);

/// An object with id, object, created, model, system_fingerprint.
Json envelope(const Service& service, const std::string& id, const char* object, std::time_t created);

/// The floats' bytes, little-endian, in base64.
std::string base64(std::span<const float> floats);

void handle_chat_completions(Call& call);
void handle_completions(Call& call);

}  // namespace plumb::server
