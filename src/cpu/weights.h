// The weights of a Program as the kernels want them: matrices packed 16 rows to a group, vectors in f32.
#pragma once

#include <functional>
#include <vector>

#include "base/pool.h"
#include "cpu/memory.h"
#include "program/program.h"

namespace plumb {

class CpuWeights {
 public:
  /// Packs on all threads; `progress` receives the share done, 0 to 1, on the calling thread.
  CpuWeights(const Program& program, Pool& pool, const std::function<void(double)>& progress);

  struct Matrix {
    const uint8_t* groups = nullptr;  // packed, or the file's own bytes where group_bytes is 0
    int64_t group_bytes = 0;
  };
  const Matrix& matrix(Weight w) const { return matrices_[size_t(w)]; }
  /// Null for w = -1. Padded with zeros to a multiple of 32.
  const float* vector(Weight w) const { return w < 0 ? nullptr : vectors_[size_t(w)].data(); }
  int64_t bytes() const { return packed_.bytes(); }

 private:
  std::vector<Matrix> matrices_;             // by weight
  std::vector<std::vector<float>> vectors_;  // by weight
  Buffer packed_;
};

}  // namespace plumb
