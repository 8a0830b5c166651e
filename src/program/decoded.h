// Decoded matrices kept for many reference runs of the same file.
#pragma once

#include <map>
#include <mutex>
#include <vector>

#include "base/buffer.h"
#include "base/pool.h"
#include "program/program.h"

namespace plumb {

class DecodedWeights {
 public:
  /// Keeps at most so many bytes; weights that come later are decoded whenever they are used. With `right`,
  /// for the runs of one Program at a time: weights that a fault reads are kept as well, by their place in
  /// it, the others there.
  explicit DecodedWeights(int64_t most_bytes, DecodedWeights* right = nullptr)
      : right_(right), most_(most_bytes) {}

  /// The weight in f32, [rows, columns], until this forgets; null if there is no room, or if a fault reads it
  /// and this is not for one Program.
  const float* get(const WeightRef& w, Pool& pool);

  /// Forgets all weights, for another Program, and keeps their memory.
  void forget();

 private:
  float* room(int64_t bytes);

  DecodedWeights* right_;
  std::mutex mutex_;
  std::map<const void*, const float*> kept_;
  std::vector<Buffer> chunks_;
  size_t chunk_ = 0;                     // the one that is being filled, up to
  int64_t used_ = 0, taken_ = 0, most_;  // bytes: of it; of all weights
};

/// Row r of the weight as it is read, in f32 [columns].
void read_row(const WeightRef& w, int64_t r, float* out);

}  // namespace plumb
