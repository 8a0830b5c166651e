// One pass of the scheduler: what goes into it, and what its logits become.
#include <algorithm>
#include <utility>

#include "base/error.h"
#include "engine/scheduler_state.h"

namespace plumb {

using Clock = SchedulerClock;

// One token for every answer under way, then as much of the prompts as a pass should hold.
void Scheduler::plan_pieces() {
  State& s = *state_;
  s.pieces.clear();
  std::vector<Slot*> reading;
  for (Slot& slot : s.slots) {
    if (!slot.job) continue;
    if (slot.next >= 0) {
      s.pieces.push_back({slot.id, std::span(&slot.next, 1)});
    } else {
      reading.push_back(&slot);
    }
  }
  const int answering = int(s.pieces.size());
  int left = answering > 0 ? std::min(s.options.busy_prompt_tokens, s.ubatch - answering) : s.ubatch;
  left = std::max(left, 1);
  std::sort(reading.begin(), reading.end(),
            [](const Slot* a, const Slot* b) { return a->started < b->started; });
  for (size_t i = 0; i < reading.size() && left > 0; ++i) {
    const Slot& slot = *reading[i];
    const std::span<const int> prompt = slot.job->request.prompt;
    const auto rest = prompt.subspan(size_t(s.sequences.length(slot.id)));
    const int share = (left + int(reading.size() - i) - 1) / int(reading.size() - i);
    const auto tokens = rest.first(std::min(rest.size(), size_t(share)));
    left -= int(tokens.size());
    const bool ends = tokens.size() == rest.size();
    const Sequences::Want want = slot.job->request.score_from >= 0 ? Sequences::Want::all
                                 : ends                            ? Sequences::Want::last
                                                                   : Sequences::Want::none;
    s.pieces.push_back({slot.id, tokens, want});
  }
}

void Scheduler::step() {
  State& s = *state_;
  plan_pieces();
  if (s.pieces.empty()) return;
  ++s.counting.passes, s.counting.busy_slots += int64_t(s.pieces.size());
  const auto see_rows = [this](std::span<const Sequences::Row> rows) { see(rows); };
  std::vector<int64_t> ends;
  for (const auto& p : s.pieces) ends.push_back(s.sequences.length(p.sequence) + int64_t(p.tokens.size()));
  try {
    s.sequences.decode_passes(s.pieces, see_rows);
    return tell_progress();
  } catch (const Error&) {  // whose fault it was shows when each goes alone
  }
  for (size_t i = 0; i < s.pieces.size(); ++i) {
    Sequences::Piece piece = s.pieces[i];
    const int64_t left = ends[i] - s.sequences.length(piece.sequence);
    if (left == 0) continue;
    piece.tokens = piece.tokens.last(size_t(left));
    try {
      s.sequences.decode_passes(std::span(&piece, 1), see_rows);
    } catch (const Error& e) {
      s.counting.nonfinite += e.code() == "numeric.nonfinite";
      note_failure(std::current_exception());
      finish(s.slots[size_t(piece.sequence)], {.error = std::current_exception()});
    }
  }
}

// To those whose prompt goes on in the next pass.
void Scheduler::tell_progress() {
  State& s = *state_;
  for (const Slot& slot : s.slots) {
    if (!slot.job || slot.ended || slot.next >= 0 || !slot.job->request.progress) continue;
    slot.job->request.hear({.read = s.sequences.length(slot.id), .times = slot.times_at(Clock::now())});
  }
}

// Rows of one pass: those inside a prompt score its next token, the others choose one.
void Scheduler::see(std::span<const Sequences::Row> rows) {
  State& s = *state_;
  std::vector<const Sequences::Row*> choose;
  for (const Sequences::Row& row : rows) {
    Slot& slot = s.slots[size_t(row.sequence)];
    const AnswerRequest& r = slot.job->request;
    const int64_t next = row.position + 1;
    if (next >= int64_t(r.prompt.size())) {
      choose.push_back(&row);
    } else if (next >= r.score_from) {
      AnswerEvent event;
      event.prompt.push_back(score_token(s.model.pool(), row.logits, r.prompt[size_t(next)], r.top));
      r.hear(std::move(event));
    }
  }
  std::vector<Answer::Step> steps(choose.size());
  std::vector<uint64_t> hashes(choose.size());
  std::vector<std::exception_ptr> errors(choose.size());
  s.model.pool().each(int(choose.size()), [&](int i) {
    Slot& slot = s.slots[size_t(choose[size_t(i)]->sequence)];
    if (slot.job->request.hash) hashes[size_t(i)] = hash_logits(choose[size_t(i)]->logits);
    if (slot.job->request.generate.n_predict == 0) {
      steps[size_t(i)].stop = Stop::limit;
      return;
    }
    try {
      steps[size_t(i)] = slot.answer->push(choose[size_t(i)]->logits);
    } catch (...) {  // a grammar that is too ambiguous, or memory
      errors[size_t(i)] = std::current_exception();
    }
  });
  for (size_t i = 0; i < choose.size(); ++i) {
    Slot& slot = s.slots[size_t(choose[i]->sequence)];
    if (errors[i]) {
      finish(slot, {.error = errors[i]});
    } else {
      tell(slot, std::move(steps[i]), choose[i]->logits, hashes[i]);
    }
  }
}

void Scheduler::tell(Slot& slot, Answer::Step step, std::span<const float> logits, uint64_t hash) {
  State& s = *state_;
  const AnswerRequest& r = slot.job->request;
  AnswerEvent event{.text = std::move(step.text)};
  if (r.hash) event.hashes.push_back(hash);
  const auto now = Clock::now();
  if (slot.next < 0) {
    slot.times.prompt_seconds = seconds_between(slot.started, now);
    if (r.progress) r.hear({.read = int64_t(r.prompt.size()), .times = slot.times});
    slot.first = now, event.first = true;
    slot.job->group->read = true;
    s.counting.first_token.add(seconds_between(slot.job->queued, now));
  } else {
    s.counting.gap.add(seconds_between(slot.last, now));
  }
  slot.last = now;
  slot.next = step.id;
  if (!step.stop && s.sequences.length(slot.id) == s.sequences.n_ctx()) step.stop = Stop::context_full;
  if (!step.stop && s.options.max_seconds > 0 && seconds_between(slot.started, now) > s.options.max_seconds)
    step.stop = Stop::limit;
  if (step.id >= 0 && step.stop != Stop::end_of_text) {
    event.tokens.push_back(r.top < 0 ? ScoredToken{.id = step.id}
                           : r.drawn ? drawn_token(slot.answer->drawn_from(), step.id, r.top)
                                     : score_token(s.model.pool(), logits, step.id, r.top));
  }
  event.times = slot.times_at(now);
  if (!step.stop) return r.hear(std::move(event));
  event.text += slot.answer->finish();
  event.stop = step.stop;
  event.stop_string = slot.answer->stop_string();
  finish(slot, std::move(event));
}

void Scheduler::finish(Slot& slot, AnswerEvent event) {
  SchedulerCounts& c = state_->counting;
  const AnswerTimes t = slot.times_at(Clock::now());
  c.prompt_tokens += t.prompt_tokens - t.cached_tokens, c.cached_tokens += t.cached_tokens;
  c.answer_tokens += t.answer_tokens;
  c.prompt_seconds += t.prompt_seconds, c.answer_seconds += t.answer_seconds;
  c.longest = std::max(c.longest, t.prompt_tokens + t.answer_tokens);
  event.times = t;
  slot.ended = true;
  slot.keep = !event.error && slot.job->request.cache_prompt;
  slot.job->group->read = true;  // or will not be
  end(*slot.job, std::move(event));
}

void Scheduler::note_failure(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    if (e.code() == "cuda.failed") state_->lost = error;
  } catch (...) {
  }
}

// After a kernel has failed no device does anything more for this process, nor lets itself be opened again
// (CUDA Runtime API, cudaErrorLaunchFailure; seen on an H200): whoever owns the process must end it.
void Scheduler::give_up_device() {
  State& s = *state_;
  for (Slot& slot : s.slots) {
    if (!slot.job) continue;
    finish(slot, {.error = s.lost});
    release(slot);
  }
  s.lost = {};
  if (!std::exchange(s.told_lost, true) && s.options.device_lost) s.options.device_lost();
}

// Outside decode(): what an ended answer has read goes to the kept texts.
void Scheduler::release(Slot& slot) {
  if (!slot.job || !slot.ended) return;
  State& s = *state_;
  const size_t length = size_t(s.sequences.length(slot.id));
  KvCache cache = s.sequences.take(slot.id);
  if (slot.keep) {
    std::vector<int> ids = slot.answer->ids();
    ids.resize(std::min(length, ids.size()));
    s.kept.put(slot.job->request.scope, std::move(ids), std::move(cache));
  }
  slot.job.reset(), slot.answer.reset();
}

}  // namespace plumb
