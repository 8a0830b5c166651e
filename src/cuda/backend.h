// What engine/ sees of CUDA: the devices, a model on one of them, and one sequence of it, or several.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/pool.h"
#include "plan/plan.h"

namespace plumb {

namespace cuda {
struct Api;
}

/// Empty where CUDA can be used; else what is missing, in words for the user.
std::string cuda_missing();

/// How many devices there are; throws Error "usage.backend" where CUDA cannot be used.
int cuda_devices();

struct CudaOptions {
  std::vector<int> devices = {0};  // several: the model is split among them; one may be named twice
  int64_t n_ctx = 1;
  int max_tokens = 1;  // per call
  bool kv_f32 = false;
  bool f32 = false;  // no rounding of activations: products in f32, in one chain per output
  bool f16 = false;  // several tokens: matrices and attention in f16 on tensor cores; then rounding is int16
  Rounding rounding = Rounding::refined;
  bool fuse = true;
  bool self_test = true;           // by whoever loads the model
  const cuda::Api* api = nullptr;  // null: the library found at run time
};

struct CudaMemory {
  std::string device;
  int64_t free = 0, total = 0;
};

/// Of the device that the options name; of several, of the one with the least free memory.
CudaMemory cuda_memory(const CudaOptions& options);

/// Device memory that a CudaSequence will take, in bytes; of several devices, on the one that it takes most
/// of. Touches no device. Throws Error "cuda.unsupported", "split.heads".
int64_t cuda_bytes(const Program& program, const CudaOptions& options);

/// The weights of a Program on a device, or split among several. What runs on them is that Program, or
/// another with the same weights.
class CudaModel {
 public:
  using Progress = std::function<void(double)>;

  /// Throws Error "cuda.missing", "cuda.unsupported", "cuda.failed", "memory.device".
  CudaModel(const Program& program, Pool& pool, const CudaOptions& options, const Progress& progress);
  ~CudaModel();

  struct State;
  const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

/// One sequence's keys and values, with room for the whole context.
class CudaSequence {
 public:
  /// Throws Error "cuda.failed", "memory.device".
  CudaSequence(const Program& program, std::shared_ptr<const CudaModel> model, const CudaOptions& options);
  /// With a model of its own.
  CudaSequence(const Program& program, Pool& pool, const CudaOptions& options,
               const CudaModel::Progress& progress);
  ~CudaSequence();

  /// Runs at most max_tokens tokens from position `first`; returns the logits of the last, or nothing if not
  /// `want`ed. Throws Error "numeric.nonfinite".
  std::span<const float> decode(std::span<const int> tokens, int64_t first, bool want);

  /// The same for a Program whose output is no matrix: asks the device for the output's rows, and waits for
  /// what was asked for last, [tokens, row_stride(size)].
  void start(std::span<const int> tokens, int64_t first);
  std::span<const float> started_rows();
  std::span<const float> rows(std::span<const int> tokens, int64_t first) {
    start(tokens, first);
    return started_rows();
  }

  /// The same, but computes what `value` needs; returns its rows, [tokens, row_stride(size)].
  std::span<const float> observe(std::span<const int> tokens, int64_t first, Value value);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Several sequences that share passes over the weights. Keys and values lie in pages of 256 positions, which
/// whoever asks for them puts together.
class CudaSequences {
 public:
  /// `count` sequences; at most options.max_tokens rows and max_wanted rows of logits in one pass.
  CudaSequences(const Program& program, std::shared_ptr<const CudaModel> model, const CudaOptions& options,
                int count, int max_wanted);
  ~CudaSequences();

  int64_t page_bytes() const;  // on all devices
  /// Throws Error "memory.device". A page goes back to the device when nobody holds it any more.
  std::shared_ptr<uint8_t> make_page();
  std::shared_ptr<uint8_t> copy_page(const uint8_t* page);
  /// The pages of a sequence from now on; they must hold every position that a pass names.
  void set_pages(int sequence, std::span<uint8_t* const> pages);

  /// Rows of one sequence lie side by side, at ascending positions without a gap.
  struct Batch {
    std::span<const int> tokens, positions, sequences;
    std::span<const int> wanted;  // rows whose logits are asked for, ascending
  };
  /// Throws Error "numeric.nonfinite", "cuda.failed".
  void run(const Batch& batch);
  /// Logits of the i-th wanted row, until the next run.
  std::span<const float> row(int i) const;

  const Plan& plan() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb
