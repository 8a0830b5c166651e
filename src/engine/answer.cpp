#include "engine/answer.h"

#include "base/error.h"

namespace plumb {

Answer::Answer(const Tokenizer& tokenizer, const GenerateOptions& options, std::vector<int> prompt,
               uint64_t choice)
    : tokenizer_(tokenizer),
      n_predict_(options.n_predict),
      ignore_eos_(options.ignore_eos),
      ids_(std::move(prompt)),
      prompt_(ids_.size()),
      sampler_(options.sampler, choice),
      grammar_(options.grammar),
      detokenizer_(tokenizer, options.special),
      filter_(options.stops) {
  PLUMB_CHECK(!ids_.empty());
}

Answer::Step Answer::push(std::span<const float> logits) {
  Step step{.id = sampler_.choose(logits, ids_, ids_.size(),
                                  grammar_ ? grammar_->allowed() : std::span<const uint64_t>())};
  if (grammar_) PLUMB_CHECK(grammar_->accept(step.id));
  if (tokenizer_.is_end_of_generation(step.id) && !ignore_eos_) {
    step.stop = Stop::end_of_text;
    return step;
  }
  ids_.push_back(step.id);
  step.text = filter_.push(detokenizer_.push(step.id));
  if (filter_.stopped()) {
    step.stop = Stop::stop_string;
  } else if (n_predict_ >= 0 && count() >= n_predict_) {
    step.stop = Stop::limit;
  }
  return step;
}

std::string Answer::finish() { return filter_.push(detokenizer_.finish()) + filter_.finish(); }

}  // namespace plumb
