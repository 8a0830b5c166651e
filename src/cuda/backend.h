// What engine/ sees of CUDA: the devices, and one sequence of a model on one of them.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/pool.h"
#include "plan/plan.h"

namespace plumb {

namespace cuda {
struct Api;
}

/// Empty where CUDA can be used; else what is missing, in words for the user.
std::string cuda_missing();

struct CudaOptions {
  int device = 0;
  int64_t n_ctx = 1;
  int max_tokens = 1;  // per call
  bool kv_f32 = false;
  bool f32 = false;  // no rounding of activations: products in f32, in one chain per output
  bool f16 = false;  // several tokens: matrices and attention in f16 on tensor cores; then rounding is int16
  Rounding rounding = Rounding::refined;
  bool fuse = true;
  const cuda::Api* api = nullptr;  // null: the library found at run time
};

struct CudaMemory {
  std::string device;
  int64_t free = 0, total = 0;
};

/// Of the device that the options name.
CudaMemory cuda_memory(const CudaOptions& options);

/// Device memory that a CudaSequence will take, in bytes; touches no device. Throws Error "cuda.unsupported".
int64_t cuda_bytes(const Program& program, const CudaOptions& options);

/// The weights of a Program and one sequence's keys and values on a device.
class CudaSequence {
 public:
  using Progress = std::function<void(double)>;

  /// Throws Error "cuda.missing", "cuda.unsupported", "cuda.failed", "memory.device".
  CudaSequence(const Program& program, Pool& pool, const CudaOptions& options, const Progress& progress);
  ~CudaSequence();

  /// Runs at most max_tokens tokens from position `first`; returns the logits of the last, or nothing if not
  /// `want`ed. Throws Error "numeric.nonfinite".
  std::span<const float> decode(std::span<const int> tokens, int64_t first, bool want);

  /// The same for a Program whose output is no matrix: the output's rows, [tokens, row_stride(size)].
  std::span<const float> rows(std::span<const int> tokens, int64_t first);

  /// The same, but computes what `value` needs; returns its rows, [tokens, row_stride(size)].
  std::span<const float> observe(std::span<const int> tokens, int64_t first, Value value);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb
