// A model of which the first layers run on a device and the rest on the CPU. Between them goes one row of the
// residual stream per token; as both compute the same bits (docs/numerics.md), where the cut lies changes
// none.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/isa.h"
#include "cpu/kv_cache.h"
#include "cuda/backend.h"
#include "program/program.h"

namespace plumb {

/// A Program in two: `front` gives `carried`, which `tail` reads as rows of a table, one per token of a call.
struct SplitProgram {
  Program front, tail;
  Value carried = -1;  // a node of the whole Program, and of front
  Weight rows = -1;    // the table, [tokens, size] in f32, of tail; its data is null

  /// The same node in tail; it lies at `carried` or behind it.
  Value in_tail(Value v) const { return v - carried; }
};

/// Cuts before layer `layers`, which lies between 0 and the last one. Throws Error "cuda.unsupported" if more
/// than one value crosses the cut.
SplitProgram split_program(const Program& program, int layers);

/// How many of the first layers fit into a device's free memory, all counting with the output.
struct Fit {
  int layers = 0;                    // 0 to n_layer
  int64_t bytes = 0, all_bytes = 0;  // what these take, and what all would
  CudaMemory memory;

  /// One line for the user.
  std::string text(int n_layer) const;
};
Fit fit_layers(const Program& program, const CudaOptions& options);

/// Throws Error "memory.device" when the first `layers` (-1: all) do not fit: what they take, what is free,
/// how many would fit.
void check_fits(const Program& program, const CudaOptions& options, int layers);

struct HybridOptions {
  int layers = 1;  // on the device, at least 1 and fewer than the model has
  CudaOptions cuda = {};
  KvTypes kv = {};
  Isa isa = best_isa();
};

/// One sequence, as CudaSequence.
class HybridSequence {
 public:
  HybridSequence(const Program& program, Pool& pool, const HybridOptions& options,
                 const CudaModel::Progress& progress);
  ~HybridSequence();

  /// Before the CPU begins with its part, the device is given the tokens that are expected next, so that it
  /// computes and copies meanwhile.
  std::span<const float> decode(std::span<const int> tokens, int64_t first, bool want,
                                std::span<const int> next = {});
  std::span<const float> observe(std::span<const int> tokens, int64_t first, Value value);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace plumb
