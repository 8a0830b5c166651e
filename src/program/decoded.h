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
  /// Keeps at most so many bytes; weights that come later are decoded whenever they are used. With `right`,
  /// for the runs of one Program: weights that a fault reads are kept as well, by their place in it, the
  /// others there.
  explicit DecodedWeights(int64_t most_bytes, DecodedWeights* right = nullptr)
      : right_(right), left_(most_bytes) {}

  /// The weight in f32, [rows, columns]; null if there is no room, or if a fault reads it and this is not for
  /// one Program.
  std::shared_ptr<const std::vector<float>> get(const WeightRef& w, Pool& pool);

 private:
  DecodedWeights* right_;
  std::mutex mutex_;
  std::map<const void*, std::shared_ptr<const std::vector<float>>> kept_;
  int64_t left_;
};

/// Row r of the weight as it is read, in f32 [columns].
void read_row(const WeightRef& w, int64_t r, float* out);

}  // namespace plumb
