// The weights of a Program as the kernels want them: matrices packed 16 rows to a group, vectors in f32.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/pool.h"
#include "cpu/packed_file.h"
#include "program/program.h"

namespace plumb {

/// Where packed weights are kept between runs. An empty path: nowhere.
struct PackedCache {
  std::string path = {};
  std::string source = {};     // of the model's file, absolute
  uint64_t stamp = 0;          // of the model's file: its size and time of change
  bool source_is_map = false;  // the Program's weights lie in a map of a file, whose pages may be dropped
};

/// Its name, shape and format, and checksums of three samples of its bytes: two that differ say other things,
/// unless only bytes between the samples do.
std::string sampled(const WeightRef& w);

class CpuWeights {
 public:
  /// Takes packed weights from the cache, or packs on all threads and keeps them there; `progress` receives
  /// the share done, 0 to 1, on the calling thread.
  CpuWeights(const Program& program, Pool& pool, const PackedCache& cache,
             const std::function<void(double)>& progress);

  struct Matrix {
    const uint8_t* groups = nullptr;  // packed, or the file's own bytes where group_bytes is 0
    int64_t group_bytes = 0;
  };
  const Matrix& matrix(Weight w) const { return matrices_[size_t(w)]; }
  /// Null for w = -1. Padded with zeros to a multiple of 32.
  const float* vector(Weight w) const { return w < 0 ? nullptr : vectors_[size_t(w)].data(); }

 private:
  struct Group {  // of 16 rows
    size_t weight;
    int64_t index, offset;
  };
  std::vector<Group> lay_out(const Program& program, std::vector<PackedPart>& parts);
  void pack(const Program& program, const std::vector<Group>& groups, uint8_t* to, Pool& pool, bool forget,
            const std::function<void(double)>& progress) const;

  std::vector<Matrix> matrices_;             // by weight
  std::vector<std::vector<float>> vectors_;  // by weight
  PackedFile file_;                          // or
  Buffer packed_;
};

}  // namespace plumb
