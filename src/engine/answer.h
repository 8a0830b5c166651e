// An answer as it grows: logits become a token, the token becomes text, and something ends it. One definition
// for the loop that runs alone (generate.h) and for those that share passes over the weights (scheduler.h).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/generate.h"

namespace plumb {

class Answer {
 public:
  struct Step {
    int id = -1;            // the token that was chosen; also one that ends the text
    std::string text = {};  // what may be shown now: whole characters in which no stop string can begin
    std::optional<Stop> stop = {};
  };

  /// `prompt` is not empty; the answer ends at n_ctx at the latest, prompt included; `choice` numbers the
  /// answers to one prompt, each with draws of its own.
  Answer(const Tokenizer& tokenizer, const GenerateOptions& options, std::vector<int> prompt, int64_t n_ctx,
         uint64_t choice = 0);

  /// Chooses the next token from the logits behind ids().
  Step push(std::span<const float> logits);

  /// What was held back, when nothing more is to come.
  std::string finish();

  /// The prompt and the answer without the token that ended it.
  const std::vector<int>& ids() const { return ids_; }
  int count() const { return int(ids_.size() - prompt_); }  // tokens of the answer
  const std::string& stop_string() const { return filter_.matched(); }
  /// Sampler::drawn_from of the last token.
  std::vector<std::pair<int, double>> drawn_from() const { return sampler_.drawn_from(); }

 private:
  int choose(std::span<const float> logits);
  int draw(std::span<const float> logits);

  const Tokenizer& tokenizer_;
  int n_predict_;
  int64_t most_;  // tokens of the answer, so that a grammar's text can be completed in time
  bool ignore_eos_;
  std::vector<int> ids_;
  size_t prompt_;
  Sampler sampler_;
  std::optional<GrammarState> grammar_;
  bool hurried_ = false;  // another token was taken so that the text would be complete in time
  std::optional<ThoughtLimit> thought_;
  Detokenizer detokenizer_;
  StopFilter filter_;
};

}  // namespace plumb
