#include "engine/answer.h"

#include <algorithm>

#include "base/error.h"

namespace plumb {

Answer::Answer(const Tokenizer& tokenizer, const GenerateOptions& options, std::vector<int> prompt,
               int64_t n_ctx, uint64_t choice)
    : tokenizer_(tokenizer),
      n_predict_(options.n_predict),
      most_(n_ctx - int64_t(prompt.size()) + 1),  // the last is not read by the model
      ignore_eos_(options.ignore_eos),
      ids_(std::move(prompt)),
      prompt_(ids_.size()),
      sampler_(options.sampler, choice, &tokenizer),
      grammar_(options.grammar),
      thought_(options.thought),
      detokenizer_(tokenizer, options.special),
      filter_(options.stops) {
  PLUMB_CHECK(!ids_.empty());
  if (n_predict_ >= 0) most_ = std::min<int64_t>(most_, n_predict_);
}

// What the sampler draws. Under a grammar, if the shortest text from there on would be cut off, it draws out
// of the tokens of which that is not so. A text that could be completed in time before still can: the first
// byte of its shortest end is such a token.
int Answer::draw(std::span<const float> logits) {
  if (!grammar_) return sampler_.choose(logits, ids_, ids_.size());
  const int64_t left = most_ - count() - 1;
  const int before = grammar_->to_end();
  const int id = sampler_.choose(logits, ids_, ids_.size(), grammar_->allowed());
  if (before > left + 1 || grammar_->to_end(id) <= left) return id;
  const auto short_enough = grammar_->allowed_within(int(left));
  if (std::all_of(short_enough.begin(), short_enough.end(), [](uint64_t w) { return w == 0; })) return id;
  hurried_ = true;
  return sampler_.choose(logits, ids_, ids_.size(), short_enough);
}

// What the sampler draws, but the end of a thought that has become too long.
int Answer::choose(std::span<const float> logits) {
  int id = draw(logits);
  if (!thought_) return id;
  ThoughtLimit& t = *thought_;
  if (t.inside && t.most == 0 && (!grammar_ || is_allowed(grammar_->allowed(), t.close))) id = t.close;
  t.most -= t.inside && id != t.close && t.most > 0;
  t.inside = id != t.close && (t.inside || id == t.open);
  return id;
}

Answer::Step Answer::push(std::span<const float> logits) {
  Step step{.id = choose(logits)};
  if (grammar_) PLUMB_CHECK(grammar_->accept(step.id));
  if (tokenizer_.is_end_of_generation(step.id) && !ignore_eos_) {
    step.stop = Stop::end_of_text;
    return hurried_ ? Step{.stop = Stop::limit} : step;
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
