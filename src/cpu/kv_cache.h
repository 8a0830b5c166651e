// The keys and values of one sequence: pages of 256 positions for all layers, allocated as the sequence
// grows.
#pragma once

#include <vector>

#include "cpu/kv_layout.h"
#include "cpu/memory.h"
#include "program/program.h"

namespace plumb {

class KvCache {
 public:
  /// Reads the shapes of the Program's attention operations.
  KvCache(const Program& program, KvTypes types);

  /// Makes room for positions below `length`. Throws Error "memory.allocate".
  void reserve(int64_t length);

  KvHead head(int layer, int kv_head) const;
  int64_t page_bytes() const { return page_bytes_; }
  int64_t bytes() const { return page_bytes_ * int64_t(pages_.size()); }

 private:
  struct Layer {
    int64_t k = 0, v = 0;              // offsets of the first head in a page
    int64_t k_bytes = 0, v_bytes = 0;  // of one head
    int dim = 0;
  };
  KvTypes types_;
  std::vector<Layer> layers_;
  int64_t page_bytes_ = 0;
  std::vector<Buffer> pages_;
  std::vector<uint8_t*> page_data_;
};

}  // namespace plumb
