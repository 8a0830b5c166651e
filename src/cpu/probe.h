// What this machine can do at most, measured where the kernels are measured: how fast all threads together
// read memory far beyond the caches, and how many multiply-adds they do from registers. A benchmark's rate
// over these limits says more than the rate.
#pragma once

#include <cstdint>

#include "base/buffer.h"
#include "base/isa.h"
#include "base/pool.h"

namespace plumb {

/// The loops of one instruction set.
struct ProbeKernels {
  struct ReadPattern {
    const char* name;
    uint64_t (*read)(const uint8_t* data,
                     int64_t bytes) noexcept;  // aligned to 4096; the result means nothing
  };
  const ReadPattern* patterns;
  int n_patterns;
  /// Does at least `macs` multiply-adds with 12 independent accumulators; returns how many.
  int64_t (*int8_macs)(int64_t macs) noexcept;
  int64_t (*f32_macs)(int64_t macs) noexcept;
};

const ProbeKernels& scalar_probe();
#if defined(__x86_64__)
const ProbeKernels& avx2_probe();
const ProbeKernels& avx512_probe();
#endif
const ProbeKernels& probe_kernels(Isa isa);

/// Measures on the threads of a pool. Every figure is the best so far, because disturbances only slow down.
class MachineProbe {
 public:
  /// Keeps `bytes` of memory (on huge pages where the system gives them) until it is destroyed.
  MachineProbe(Isa isa, Pool& pool, int64_t bytes);

  /// Tries every access pattern and both multipliers, `rounds` times each.
  void measure(int rounds);

  /// One round of the best pattern and of the int8 loop: how the machine is just now.
  struct Now {
    double read = 0, int8 = 0;  // bytes/s, MAC/s
  };
  Now measure_again();

  double read_rate() const { return read_rate_; }  // bytes/s
  const char* read_pattern() const { return kernels_.patterns[best_].name; }
  double int8_rate() const { return int8_rate_; }  // MAC/s
  double f32_rate() const { return f32_rate_; }    // MAC/s
  int64_t bytes() const { return memory_.bytes(); }

 private:
  double read_once(int pattern);
  double multiply_once(int64_t (*macs)(int64_t) noexcept);

  const ProbeKernels& kernels_;
  Pool& pool_;
  Buffer memory_;
  int best_ = 0;
  double read_rate_ = 0, int8_rate_ = 0, f32_rate_ = 0;
};

}  // namespace plumb
