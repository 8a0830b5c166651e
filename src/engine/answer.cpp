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
      sampler_(options.sampler, choice, &tokenizer),
      grammar_(options.grammar),
      thought_(options.thought),
      detokenizer_(tokenizer, options.special),
      filter_(options.stops) {
  PLUMB_CHECK(!ids_.empty());
}

// What the sampler draws, but the end of a thought that has become too long.
int Answer::choose(std::span<const float> logits) {
  const auto allowed = grammar_ ? grammar_->allowed() : std::span<const uint64_t>();
  int id = sampler_.choose(logits, ids_, ids_.size(), allowed);
  if (!thought_) return id;
  ThoughtLimit& t = *thought_;
  if (t.inside && t.most == 0 && (allowed.empty() || is_allowed(allowed, t.close))) id = t.close;
  t.most -= t.inside && id != t.close && t.most > 0;
  t.inside = id != t.close && (t.inside || id == t.open);
  return id;
}

Answer::Step Answer::push(std::span<const float> logits) {
  Step step{.id = choose(logits)};
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
