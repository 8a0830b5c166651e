// The keys and values of one sequence: pages of 256 positions for all layers, allocated as the sequence
// grows. Several sequences may share a page; each sees to it that it writes to none that it shares.
#pragma once

#include <memory>
#include <vector>

#include "base/buffer.h"
#include "cpu/kv_layout.h"
#include "program/program.h"

namespace plumb {

/// Where a cache's pages come from, if not from this machine's memory.
class KvPages {
 public:
  virtual ~KvPages() = default;
  virtual int64_t page_bytes() const = 0;
  virtual std::shared_ptr<uint8_t> make() = 0;
  virtual std::shared_ptr<uint8_t> copy(const uint8_t* page) = 0;
};

/// So many tokens at once make huge pages worth their memory, which a short prompt leaves nearly untouched.
constexpr int kManyTokens = 32;

class KvCache {
 public:
  /// Reads the shapes of the Program's attention operations.
  KvCache(const Program& program, KvTypes types);
  /// Of pages that only `source` knows; without head().
  explicit KvCache(std::shared_ptr<KvPages> source);
  KvCache(KvCache&&) = default;
  KvCache& operator=(KvCache&&) = default;

  /// Makes room for positions below `length`. Throws Error "memory.allocate".
  void reserve(int64_t length);

  /// Takes the first `length` positions of another cache of the same model and types: whole pages are shared,
  /// the last one is copied where it is not full. What it held before is gone.
  void share(const KvCache& other, int64_t length);

  /// Forgets what lies behind `length`, so that it can be written anew: shared pages that would be written to
  /// are replaced.
  void truncate(int64_t length);

  KvHead head(int layer, int kv_head) const;
  int64_t page_bytes() const { return page_bytes_; }
  int64_t bytes() const { return page_bytes_ * int64_t(pages_.size()); }
  /// Where the pages lie: equal addresses are shared pages.
  const std::vector<uint8_t*>& pages() const { return page_data_; }

 private:
  struct Layer {
    int64_t k = 0, v = 0;              // offsets of the first head in a page
    int64_t k_bytes = 0, v_bytes = 0;  // of one head
    int dim = 0;
  };
  KvTypes types_;
  std::vector<Layer> layers_;
  int64_t page_bytes_ = 0;
  std::shared_ptr<uint8_t> make_page(Buffer::Pages pages) const;
  void add(std::shared_ptr<uint8_t> page);
  void add_copy(const uint8_t* page);

  std::shared_ptr<KvPages> source_;
  std::vector<std::shared_ptr<uint8_t>> pages_;
  std::vector<uint8_t*> page_data_;
};

}  // namespace plumb
