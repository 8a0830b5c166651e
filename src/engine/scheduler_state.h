// What the two halves of the scheduler share: its state. Only scheduler*.cpp include this.
#pragma once

#include <algorithm>
#include <optional>

#include "engine/scheduler.h"

namespace plumb {

using SchedulerClock = std::chrono::steady_clock;

inline double seconds_between(SchedulerClock::time_point from, SchedulerClock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

// Answers to one prompt: the first reads it, the others wait for that and share its pages.
struct AnswerGroup {
  bool read = false;
};

struct Scheduler::Job {
  AnswerRequest request;
  std::shared_ptr<Ticket> ticket;
  std::shared_ptr<AnswerGroup> group;
  bool leads = true;  // its group
  SchedulerClock::time_point queued = SchedulerClock::now();
};

struct Scheduler::Slot {
  int id = 0;
  std::optional<Job> job;
  std::optional<Answer> answer;
  int next = -1;       // chosen, not yet read by the model
  bool ended = false;  // its end has been heard; `keep`: what it read may serve others
  bool keep = false;
  AnswerTimes times;
  SchedulerClock::time_point started, first, last;  // its first and last token

  AnswerTimes times_at(SchedulerClock::time_point now) const {
    AnswerTimes t = times;
    t.answer_tokens = answer->count();
    if (first >= started) {
      t.answer_seconds = seconds_between(first, now);
    } else {
      t.prompt_seconds = seconds_between(started, now);
    }
    return t;
  }
};

struct Scheduler::State {
  State(const Model& model_, const RunnerOptions& runner, const SchedulerOptions& options_)
      : model(model_),
        options(options_),
        ubatch(runner.n_ubatch),
        sequences(model_, runner, options_.slots),
        kept(options_.cache_bytes),
        slots(size_t(options_.slots)) {
    for (size_t i = 0; i < slots.size(); ++i) slots[i].id = int(i);
  }

  bool busy() const {
    return std::any_of(slots.begin(), slots.end(), [](const Slot& s) { return s.job.has_value(); });
  }

  const Model& model;
  const SchedulerOptions options;
  const int ubatch;

  // Of the scheduler's thread.
  Sequences sequences;
  PrefixCache kept;
  std::vector<Slot> slots;
  std::vector<Sequences::Piece> pieces;
  SchedulerCounts counting;
  std::exception_ptr lost = {};  // the device's failure
  bool told_lost = false;

  mutable std::mutex mutex;  // what follows
  std::condition_variable wake;
  std::deque<Job> queue;
  std::vector<std::function<void()>> between;
  bool draining = false, cancelling = false, stopping = false;
  int64_t open = 0;  // answers that have not ended
  int64_t rejected = 0;
  SchedulerCounts published;
  std::vector<SlotState> shown;

  std::thread thread;
};

}  // namespace plumb
