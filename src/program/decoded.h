// Decoded matrices kept for many reference runs of the same file.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/pool.h"
#include "program/program.h"

namespace plumb {

class DecodedWeights {
 public:
  /// Keeps at most so many bytes; weights that come later are decoded whenever they are used.
  explicit DecodedWeights(int64_t most_bytes) : left_(most_bytes) {}

  /// The weight in f32, [rows, columns]; null if a fault reads it, or if there is no room.
  std::shared_ptr<const std::vector<float>> get(const WeightRef& w, Pool& pool);

 private:
  std::mutex mutex_;
  std::map<const uint8_t*, std::shared_ptr<const std::vector<float>>> kept_;  // by place in the file
  int64_t left_;
};

/// Row r of the weight as it is read, in f32 [columns].
void read_row(const WeightRef& w, int64_t r, float* out);

}  // namespace plumb
