// From a request's answers to bytes: collects what is heard, whole or as a stream of events. What the events
// and the final object look like is the affair of a Style: one per API.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/scheduler.h"
#include "server/service.h"

namespace plumb::server {

/// An answer so far.
struct Choice {
  std::string text = {};
  std::vector<ScoredToken> prompt = {}, tokens = {};
  std::vector<uint64_t> hashes = {};  // of logits, where asked for
  std::optional<Stop> stop = {};
  std::string stop_string = {};
  AnswerTimes times = {};
};

class Style {
 public:
  virtual ~Style() = default;
  virtual ApiStyle api() const { return ApiStyle::openai; }
  /// The whole answer.
  virtual Json whole(const std::vector<Choice>& choices) = 0;
  /// Events before the first piece, for a piece (which `choices` holds already), and at the end.
  virtual std::string opening() { return {}; }
  /// An event that tells how far a prompt has been read.
  virtual std::string progress(size_t, const AnswerEvent&) { return {}; }
  virtual std::string piece(size_t choice, const AnswerEvent& event, const std::vector<Choice>& choices) = 0;
  virtual std::string closing(const std::vector<Choice>& choices) = 0;
};

/// `data: ...` and an empty line; with a name also `event: ...`.
std::string sse(const Json& data);
std::string sse(const char* event, const Json& data);

/// Submits the requests and answers through the call's reply. Throws what Scheduler::submit throws.
void answer_with(const Call& call, std::vector<AnswerRequest> requests, std::unique_ptr<Style> style,
                 bool stream);

/// timings_per_token, and return_progress, which the request is told. Both are for streams.
bool read_live_fields(Fields& fields, bool stream, AnswerRequest& request);

/// {"total", "cache", "processed", "time_ms"} of a prompt, as llama.cpp's server has it.
Json progress_json(const AnswerEvent& event);

/// "stop", "length" as OpenAI names them.
const char* finish_reason(Stop stop);

/// prompt_tokens and its kin; `prompts` choices of `n` answers each share a prompt.
Json usage_json(const std::vector<Choice>& choices, int n);

}  // namespace plumb::server
