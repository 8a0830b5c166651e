// Threads that work through units together: a claim hands out the next unit, a barrier ends the step.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace plumb {

/// A fixed crew; the caller of run() is thread 0. Waiting spins for some tens of microseconds, then sleeps,
/// so that an idle or oversubscribed machine is not kept busy.
class Pool {
 public:
  explicit Pool(int threads);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  int threads() const { return int(workers_.size()) + 1; }

  /// Runs `job(thread)` on every thread and returns when all are done. The job must not throw.
  void run(const std::function<void(int thread)>& job);

  /// The next of `units` work items of this step, or -1 when all are taken. Only inside run().
  int claim(int units) {
    const int unit = next_.fetch_add(1, std::memory_order_relaxed);
    return unit < units ? unit : -1;
  }

  /// Waits until every thread is here, then starts the claims again from 0. Only inside run().
  void barrier();

  /// run() with one step: job(unit) for every unit in [0, units).
  void each(int units, const std::function<void(int unit)>& job);

 private:
  void work(int thread);

  alignas(64) std::atomic<int> next_ = 0;
  alignas(64) std::atomic<int> arrived_ = 0;
  alignas(64) std::atomic<unsigned> phase_ = 0;  // counts barriers
  alignas(64) std::atomic<unsigned> job_number_ = 0;
  const std::function<void(int)>* job_ = nullptr;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace plumb
