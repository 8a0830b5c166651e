// Writes a model again with its matrices in other formats.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "base/pool.h"
#include "engine/model.h"
#include "gguf/gguf.h"
#include "quant/mix.h"

namespace plumb {

struct QuantizeOptions {
  MixOptions mix;  // its n_layer and n_gqa are read from the file
  bool allow_requantize = false;
  std::atomic<bool>* cancel = nullptr;  // asked between pieces; then Error "run.cancelled"
};

struct QuantizePlan {
  struct Change {
    const GgufTensor* tensor;
    MixChoice to;
    bool again = false;  // codes are made from codes
  };
  std::vector<Change> changes;  // every tensor, in the order of the file
  int file_type = 0;
  int64_t bytes = 0;  // of all tensors as written
  int fallbacks = 0, again = 0;
};

/// Throws Error "quantize.again" where quantised tensors would be changed without being allowed to.
QuantizePlan plan_quantize(const Gguf& file, const QuantizeOptions& options);

/// Writes `path` whole or not at all; the bytes depend on the file and the plan only. Throws Error
/// "file.write", "run.cancelled", and "quantize.nonfinite" for a weight that no code stands for.
void quantize(const Gguf& file, const QuantizePlan& plan, const std::string& path, Pool& pool,
              const Progress& progress, std::atomic<bool>* cancel);

}  // namespace plumb
