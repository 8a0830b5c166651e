// Many answers at once: requests wait in a bounded queue, get a slot, and all slots share every pass over the
// weights (continuous batching). What an answer says depends on its own request alone, bit for bit
// (docs/numerics.md); the others change only when it comes.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/answer.h"
#include "engine/histogram.h"
#include "engine/prefix_cache.h"
#include "engine/scores.h"
#include "engine/sequences.h"

namespace plumb {

/// How an answer came about, in numbers.
struct AnswerTimes {
  int64_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0;
  double queue_seconds = 0, prompt_seconds = 0, answer_seconds = 0;
  // Why the cache ended early: the first id that differs, -1 where it did not.
  int64_t miss_position = -1;
  int miss_expected = -1, miss_got = -1;
};

/// What a request hears, in order: how far its prompt has been read and tokens of it, if they were asked for,
/// pieces of the answer, an end.
struct AnswerEvent {
  int64_t read = -1;                     // so many tokens of the prompt; -1: another event
  std::vector<ScoredToken> prompt = {};  // scored tokens of the prompt, from `score_from` on
  std::vector<ScoredToken> tokens = {};  // of the answer; scores only where asked for
  std::vector<uint64_t> hashes = {};     // of the logits that chose, also those that chose the end
  std::string text = {};
  bool first = false;      // the first token of the answer
  AnswerTimes times = {};  // so far
  // The end:
  std::optional<Stop> stop = {};
  std::string stop_string = {};
  std::exception_ptr error = {};  // instead of a stop
  bool last() const { return stop || error; }
};

struct AnswerRequest {
  std::vector<int> prompt;  // not empty
  GenerateOptions generate = {};
  uint64_t choice = 0;  // number of the answer among those to one prompt
  int scope = 0;        // whose cached texts it may use
  bool cache_prompt = true;
  int top = -1;                           // likeliest tokens to report with each token; -1: no scores at all
  bool drawn = false;                     // report what each token was drawn from, not what the model said
  bool hash = false;                      // hear hash_logits() of each row that chooses
  bool progress = false;                  // hear how far the prompt has been read
  int64_t score_from = -1;                // score the prompt's tokens from this one on; -1: none
  std::function<void(AnswerEvent)> hear;  // called on the scheduler's thread; must not throw
};

struct SchedulerOptions {
  int slots = 4;
  int queue = 64;                          // requests that may wait
  int64_t cache_bytes = int64_t(1) << 30;  // of texts kept for later prompts
  int busy_prompt_tokens = 64;             // of prompts per pass while answers wait for their next token
  double max_seconds = 0;                  // of an answer, from its slot on; 0: no limit
  std::function<void()> device_lost = {};  // once, on the scheduler's thread: answers under way have ended
};

struct SchedulerCounts {
  int64_t prompt_tokens = 0, cached_tokens = 0, answer_tokens = 0, passes = 0, busy_slots = 0, longest = 0;
  int64_t finished = 0, cancelled = 0, failed = 0, rejected = 0, nonfinite = 0;
  double prompt_seconds = 0, answer_seconds = 0;
  int processing = 0, waiting = 0;
  int64_t kept_bytes = 0, kept_texts = 0, evictions = 0, slot_bytes = 0;
  Histogram queue_wait, first_token, gap;  // between two tokens
};

struct SlotState {
  int id = 0;
  bool busy = false;
  int64_t length = 0, prompt_tokens = 0, answer_tokens = 0;
};

class Scheduler {
 public:
  /// Stops the request; its end is heard as Stop::cancelled unless it has ended before.
  class Ticket {
   public:
    void cancel();

   private:
    friend class Scheduler;
    std::atomic<bool> cancelled_ = false;
    Scheduler* owner_ = nullptr;
  };

  /// Starts its thread, which alone uses the model's threads from then on.
  Scheduler(const Model& model, const RunnerOptions& runner, const SchedulerOptions& options);
  ~Scheduler();

  /// Answers one prompt: as many requests as answers are wanted. All are taken or none. Throws Error
  /// "context.full", "token.range", "queue.full" (also once draining).
  std::shared_ptr<Ticket> submit(std::vector<AnswerRequest> answers);

  /// Runs `job` between two passes on the scheduler's thread, where it may use the model's threads.
  void run_between(std::function<void()> job);

  /// Of what went wrong on the scheduler's thread: if the device is lost with it ("cuda.failed"), so are all
  /// answers under way, and SchedulerOptions::device_lost is called.
  void note_failure(std::exception_ptr error);

  /// Takes no more requests.
  void drain();
  /// Ends whatever still runs or waits.
  void cancel_all();
  bool idle() const;
  bool ending() const;  // cancel_all() has been called

  SchedulerCounts counts() const;
  std::vector<SlotState> slots() const;
  int64_t n_ctx() const;

 private:
  struct Job;
  struct Slot;
  struct State;

  void loop();
  void drop_cancelled();
  void admit();
  void begin(Slot& slot);
  void plan_pieces();
  void step();
  void see(std::span<const Sequences::Row> rows);
  void tell(Slot& slot, Answer::Step step, std::span<const float> logits, uint64_t hash);
  void tell_progress();
  void finish(Slot& slot, AnswerEvent event);
  void end(Job& job, AnswerEvent event);
  void release(Slot& slot);
  void give_up_device();
  void publish();

  std::unique_ptr<State> state_;
};

}  // namespace plumb
