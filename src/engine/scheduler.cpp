#include "engine/scheduler.h"

#include <fmt/format.h>

#include <map>

#include "base/error.h"
#include "engine/scheduler_state.h"

namespace plumb {
namespace {

using Clock = SchedulerClock;

constexpr double kMaxQueueSeconds = 60;

}  // namespace

void Scheduler::Ticket::cancel() {
  cancelled_ = true;
  owner_->state_->wake.notify_all();
}

Scheduler::Scheduler(const Model& model, const RunnerOptions& runner, const SchedulerOptions& options)
    : state_(std::make_unique<State>(model, runner, options)) {
  model.tokenizer();  // now, as several threads will read it
  publish();
  state_->thread = std::thread([this] { loop(); });
}

Scheduler::~Scheduler() {
  cancel_all();
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
  }
  state_->wake.notify_all();
  state_->thread.join();
}

int64_t Scheduler::n_ctx() const { return state_->sequences.n_ctx(); }

std::shared_ptr<Scheduler::Ticket> Scheduler::submit(std::vector<AnswerRequest> answers) {
  State& s = *state_;
  for (const AnswerRequest& a : answers) {
    PLUMB_CHECK(!a.prompt.empty() && a.hear);
    check(a.generate.sampler);
    check_tokens(s.model, a.prompt, std::max(0, a.generate.n_predict), n_ctx());
  }
  auto ticket = std::make_shared<Ticket>();
  auto group = std::make_shared<AnswerGroup>();
  ticket->owner_ = this;
  {
    const std::lock_guard lock(s.mutex);
    // Answers on their way to a free slot do not wait.
    if (s.draining || s.open + int64_t(answers.size()) > s.options.slots + s.options.queue) {
      ++s.rejected;
      throw Error({.code = "queue.full",
                   .expected = fmt::format("at most {} waiting answers", s.options.queue),
                   .found = s.draining ? "a server that is about to end" : "a full queue",
                   .remedy = "try again later"});
    }
    s.open += int64_t(answers.size());
    for (size_t i = 0; i < answers.size(); ++i)
      s.queue.push_back({std::move(answers[i]), ticket, group, i == 0});
  }
  s.wake.notify_all();
  return ticket;
}

void Scheduler::run_between(std::function<void()> job) {
  {
    const std::lock_guard lock(state_->mutex);
    state_->between.push_back(std::move(job));
  }
  state_->wake.notify_all();
}

void Scheduler::drain() {
  const std::lock_guard lock(state_->mutex);
  state_->draining = true;
}

void Scheduler::cancel_all() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->draining = state_->cancelling = true;
  }
  state_->wake.notify_all();
}

bool Scheduler::idle() const {
  const std::lock_guard lock(state_->mutex);
  return state_->open == 0;
}

bool Scheduler::ending() const {
  const std::lock_guard lock(state_->mutex);
  return state_->cancelling;
}

SchedulerCounts Scheduler::counts() const {
  const std::lock_guard lock(state_->mutex);
  SchedulerCounts c = state_->published;
  c.waiting = int(state_->queue.size());
  c.rejected = state_->rejected;
  return c;
}

std::vector<SlotState> Scheduler::slots() const {
  const std::lock_guard lock(state_->mutex);
  return state_->shown;
}

void Scheduler::loop() {
  State& s = *state_;
  while (true) {
    std::vector<std::function<void()>> between;
    {
      std::unique_lock lock(s.mutex);
      const auto work = [&] { return s.stopping || !s.queue.empty() || !s.between.empty() || s.busy(); };
      s.wake.wait(lock, work);
      if (s.stopping && s.queue.empty() && s.between.empty() && !s.busy()) return;
      between.swap(s.between);
    }
    for (const auto& job : between) job();
    drop_cancelled();
    admit();
    step();
    for (Slot& slot : s.slots) release(slot);
    if (s.lost) give_up_device();
    publish();
  }
}

void Scheduler::publish() {
  State& s = *state_;
  SchedulerCounts c = s.counting;
  c.kept_bytes = s.kept.bytes(), c.kept_texts = s.kept.texts(), c.evictions = s.kept.evictions();
  std::vector<SlotState> shown;
  for (const Slot& slot : s.slots) {
    c.processing += slot.job.has_value();
    c.slot_bytes += s.sequences.cache(slot.id).bytes();
    shown.push_back({slot.id, slot.job.has_value(), s.sequences.length(slot.id), slot.times.prompt_tokens,
                     slot.answer ? slot.answer->count() : 0});
  }
  const std::lock_guard lock(s.mutex);
  s.published = c, s.shown = std::move(shown);
}

void Scheduler::end(Job& job, AnswerEvent event) {
  State& s = *state_;
  ++(event.error                      ? s.counting.failed
     : *event.stop == Stop::cancelled ? s.counting.cancelled
                                      : s.counting.finished);
  {  // first: whoever hears the end may ask again at once
    const std::lock_guard lock(s.mutex);
    --s.open;
  }
  job.request.hear(std::move(event));
}

void Scheduler::drop_cancelled() {
  State& s = *state_;
  std::vector<Job> dropped;
  bool all = false;
  {
    const std::lock_guard lock(s.mutex);
    all = s.cancelling;
    const auto now = Clock::now();
    for (auto it = s.queue.begin(); it != s.queue.end();) {
      const bool gone = all || it->ticket->cancelled_ || seconds_between(it->queued, now) > kMaxQueueSeconds;
      if (gone) dropped.push_back(std::move(*it));
      it = gone ? s.queue.erase(it) : std::next(it);
    }
  }
  for (Job& job : dropped) {
    AnswerEvent event{.stop = Stop::cancelled};
    if (!all && !job.ticket->cancelled_) {
      event.error = std::make_exception_ptr(Error(
          {.code = "queue.timeout", .expected = fmt::format("a free slot within {} s", kMaxQueueSeconds)}));
    }
    event.times.prompt_tokens = int64_t(job.request.prompt.size());
    end(job, std::move(event));
  }
  for (Slot& slot : s.slots) {
    if (slot.job && (all || slot.job->ticket->cancelled_)) {
      finish(slot, {.text = slot.answer->finish(), .stop = Stop::cancelled});
      release(slot);
    }
  }
}

// The free slots go to the waiting answers of whoever holds the fewest slots, first come first served.
void Scheduler::admit() {
  State& s = *state_;
  std::map<int, int> held;
  for (const Slot& slot : s.slots) {
    if (slot.job) ++held[slot.job->request.scope];
  }
  for (Slot& slot : s.slots) {
    if (slot.job) continue;
    {
      const std::lock_guard lock(s.mutex);
      auto best = s.queue.end();
      for (auto it = s.queue.begin(); it != s.queue.end(); ++it) {
        if (!it->leads && !it->group->read) continue;
        if (best == s.queue.end() || held[it->request.scope] < held[best->request.scope]) best = it;
      }
      if (best == s.queue.end()) return;
      slot.job.emplace(std::move(*best));
      s.queue.erase(best);
    }
    ++held[slot.job->request.scope];
    begin(slot);
  }
}

void Scheduler::begin(Slot& slot) {
  State& s = *state_;
  const AnswerRequest& r = slot.job->request;
  slot.answer.emplace(s.model.tokenizer(), r.generate, r.prompt, n_ctx(), r.choice);
  slot.started = Clock::now();
  slot.ended = false, slot.next = -1;
  slot.times = {.prompt_tokens = int64_t(r.prompt.size()),
                .queue_seconds = seconds_between(slot.job->queued, slot.started)};
  s.counting.queue_wait.add(slot.times.queue_seconds);
  // The last token's logits are needed, and those before every token that is to be scored.
  int64_t most = int64_t(r.prompt.size()) - 1;
  if (r.score_from >= 0) most = std::min(most, std::max<int64_t>(0, r.score_from - 1));
  if (!r.cache_prompt || most == 0) return;
  PrefixCache::Hit hit = s.kept.find(r.scope, r.prompt);
  for (const Slot& other : s.slots) {
    if (&other == &slot || !other.job || other.job->request.scope != r.scope) continue;
    const std::span<const int> read =
        std::span(other.answer->ids()).first(size_t(s.sequences.length(other.id)));
    if (const int64_t n = common_prefix(read, r.prompt); n > hit.length)
      hit = {&s.sequences.cache(other.id), n,
             size_t(n) < read.size() && size_t(n) < r.prompt.size() ? read[size_t(n)] : -1};
  }
  const int64_t length = std::min(hit.length, most);
  if (length == 0) return;
  s.sequences.start_from(slot.id, *hit.cache, length);
  slot.times.cached_tokens = length;
  if (hit.expected >= 0) {
    slot.times.miss_position = hit.length;
    slot.times.miss_expected = hit.expected, slot.times.miss_got = r.prompt[size_t(hit.length)];
  }
}

}  // namespace plumb
