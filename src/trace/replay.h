// Local replay: each operation computed in f64 on the values that a trace recorded as its inputs, and
// compared with what the trace recorded as its output. Errors do not accumulate: every faulty operation shows
// by itself, and later ones stay clean.
#pragma once

#include "engine/model.h"
#include "trace/compare.h"

namespace plumb::trace {

struct Replayed {
  Value value;
  std::vector<Value> segment;  // the nodes computed, ascending; more than one where inputs were not recorded
  Difference difference;
  std::string habit = {};  // what explains a difference that is no fault
};

/// Rows at positions below `positions`, which `tokens` covers; in the order of the Program. Error
/// "run.cancelled" once `cancel` says so.
std::vector<Replayed> replay(const Model& model, const Rows& rows, std::span<const int> tokens,
                             int64_t positions, std::atomic<bool>* cancel = nullptr);

/// The relative error if recorded inputs were rounded as engines do: of a matrix product to 8 bits in blocks,
/// as its weights' format has them; of attention to f16, or for `bf16` if its scores were; 0 for others. A
/// wrong network's activations may be far more spiky, and its scores far larger, than those that the noise
/// floor was measured on.
double rounding_error(const Model& model, const Rows& rows, std::span<const int> tokens, int64_t positions,
                      const Replayed& replayed, bool bf16);

}  // namespace plumb::trace
