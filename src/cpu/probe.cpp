#include "cpu/probe.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"
#include "cpu/probe_impl.h"

namespace plumb {
namespace {

struct Word {
  using Type = uint64_t;
  static constexpr int kBytes = 8;
  static Type load(const uint8_t* p) {
    Type v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
  static Type either(Type a, Type b) { return a | b; }
  static uint64_t bits(Type a) { return a; }
};

// Whatever the compiler makes of a plain dot product in the first-level cache.
template <class T, class Sum>
int64_t plain_macs(int64_t macs) noexcept {
  constexpr int kSize = 2048;
  alignas(64) T w[kSize], x[kSize];
  std::fill_n(w, kSize, T(3));
  std::fill_n(x, kSize, T(1));
  int64_t done = 0;
  for (; done < macs; done += kSize) {
    Sum sums[64] = {};
    for (int i = 0; i < kSize; i += 64) {
      for (int j = 0; j < 64; ++j) sums[j] = Sum(sums[j] + Sum(w[i + j]) * Sum(x[i + j]));
    }
    asm volatile("" : : "r"(sums), "r"(w), "r"(x) : "memory");
  }
  return done;
}

// Seconds that job(thread) takes on all threads, from when they are all ready until the last is done.
template <class Job>
double timed(Pool& pool, const Job& job) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point start, end;
  pool.run([&](int thread) {
    pool.barrier();
    if (thread == 0) start = Clock::now();
    job(thread);
    pool.barrier();
    if (thread == 0) end = Clock::now();
  });
  return std::chrono::duration<double>(end - start).count();
}

}  // namespace

const ProbeKernels& scalar_probe() {
  static constexpr ProbeKernels kKernels = {kReadPatterns<Word>, 8, plain_macs<int8_t, int32_t>,
                                            plain_macs<float, float>};
  return kKernels;
}

const ProbeKernels& probe_kernels(Isa isa) {
  PLUMB_CHECK(supported(isa));
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512_probe();
  if (isa == Isa::avx2) return avx2_probe();
#endif
  return scalar_probe();
}

MachineProbe::MachineProbe(Isa isa, Pool& pool, int64_t bytes)
    : kernels_(probe_kernels(isa)),
      pool_(pool),
      memory_(std::max(bytes, pool.threads() * int64_t(1 << 16)) / 4096 * 4096) {
  const int64_t share = memory_.bytes() / pool_.threads() / 4096 * 4096;
  pool_.run([&](int thread) {  // first touched by the thread that will read it
    std::memset(memory_.data() + thread * share, 1 + thread % 127, size_t(share));
  });
}

double MachineProbe::read_once(int pattern) {
  const int64_t share = memory_.bytes() / pool_.threads() / 4096 * 4096;
  const double seconds = timed(pool_, [&](int thread) {
    const uint64_t seen = kernels_.patterns[pattern].read(memory_.data() + thread * share, share);
    asm volatile("" : : "r"(seen));
  });
  return double(share * pool_.threads()) / seconds;
}

double MachineProbe::multiply_once(int64_t (*macs)(int64_t) noexcept) {
  std::atomic<int64_t> done = 0;
  const auto all = [&](int64_t most) {
    done = 0;
    return timed(pool_, [&](int) { done.fetch_add(macs(most), std::memory_order_relaxed); });
  };
  // Long enough that starting together does not count: some 5 ms.
  const double guess = all(1 << 20) / double(1 << 20);
  const double seconds = all(int64_t(0.005 / guess));
  return double(done.load()) / seconds;
}

void MachineProbe::measure(int rounds) {
  for (int r = 0; r < rounds; ++r) {
    for (int i = 0; i < kernels_.n_patterns; ++i) {
      const double rate = read_once(i);
      if (rate > read_rate_) read_rate_ = rate, best_ = i;
    }
    int8_rate_ = std::max(int8_rate_, multiply_once(kernels_.int8_macs));
    f32_rate_ = std::max(f32_rate_, multiply_once(kernels_.f32_macs));
  }
}

MachineProbe::Now MachineProbe::measure_again() {
  const Now now = {read_once(best_), multiply_once(kernels_.int8_macs)};
  read_rate_ = std::max(read_rate_, now.read);
  int8_rate_ = std::max(int8_rate_, now.int8);
  return now;
}

}  // namespace plumb
