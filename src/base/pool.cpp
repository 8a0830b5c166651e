#include "base/pool.h"

#include "base/error.h"

namespace plumb {
namespace {

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 30 us of pauses before the thread gives its core away: longer than a step is uneven, shorter than a
// time slice.
constexpr int kSpins = 1000;

void wait_while_equal(std::atomic<unsigned>& value, unsigned old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_briefly();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

Pool::Pool(int threads) {
  PLUMB_CHECK(threads >= 1);
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
}

Pool::~Pool() {
  stop_ = true;
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
  for (std::thread& w : workers_) w.join();
}

void Pool::run(const std::function<void(int)>& job) {
  job_ = &job;
  next_.store(0, std::memory_order_relaxed);
  job_number_.fetch_add(1, std::memory_order_release);
  job_number_.notify_all();
  job(0);
  barrier();
}

void Pool::work(int thread) {
  for (unsigned seen = 0;;) {
    wait_while_equal(job_number_, seen);
    ++seen;
    if (stop_) return;
    (*job_)(thread);
    barrier();
  }
}

void Pool::barrier() {
  const unsigned phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads()) {
    arrived_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    phase_.notify_all();
  } else {
    wait_while_equal(phase_, phase);
  }
}

void Pool::each(int units, const std::function<void(int)>& job) {
  run([&](int) {
    for (int unit; (unit = claim(units)) >= 0;) job(unit);
  });
}

}  // namespace plumb
