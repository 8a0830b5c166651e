// Keys and values on a device: pages of kAttentionChunk positions for all layers, and, per sequence, the
// table of its pages that kernels read.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cuda/weights.h"
#include "program/program.h"

namespace plumb::cuda {

/// Where the layers' keys and values [kAttentionChunk][heads][dim] begin in a page, in bytes.
struct PageLayout {
  PageLayout(const Program& program, bool kv_f32);
  struct Layer {
    int64_t k = 0, v = 0;
  };
  std::vector<Layer> layers;
  int64_t bytes = 0;
};

inline int64_t pages_for(int64_t positions) { return (positions + kAttentionChunk - 1) / kAttentionChunk; }

/// Pages that come one by one; those given back serve again.
class PagePool : public std::enable_shared_from_this<PagePool> {
 public:
  PagePool(const Api& api, Context* context, int64_t page_bytes);

  /// Throws Error "memory.device". The page goes back when nobody holds it any more.
  std::shared_ptr<uint8_t> make();
  std::shared_ptr<uint8_t> copy(const uint8_t* page);
  int64_t page_bytes() const { return page_bytes_; }

 private:
  const Api& api_;
  Context* context_;
  const int64_t page_bytes_;
  std::vector<DeviceBuffer> buffers_;
  std::mutex mutex_;  // of what follows: pages may come back on any thread
  std::vector<uint8_t*> free_;
};

/// Pages of several ranks, one of each together, known by the first rank's.
class PageSets : public std::enable_shared_from_this<PageSets> {
 public:
  explicit PageSets(std::vector<std::shared_ptr<PagePool>> pools) : pools_(std::move(pools)) {}

  /// Throw Error "memory.device". The set goes back when nobody holds it any more.
  std::shared_ptr<uint8_t> make();
  std::shared_ptr<uint8_t> copy(const uint8_t* page);
  /// The rank's page of a set that somebody holds.
  uint8_t* of(size_t rank, uint8_t* page) const;
  int64_t page_bytes() const;

 private:
  using Set = std::vector<std::shared_ptr<uint8_t>>;  // by rank
  std::shared_ptr<uint8_t> keep(Set set);
  const std::vector<std::shared_ptr<PagePool>> pools_;
  mutable std::mutex mutex_;  // of what follows: sets may come back on any thread
  std::map<const uint8_t*, Set> sets_;
};

/// The tables [sequences][pages] of some sequences.
class PageTables {
 public:
  PageTables(const Api& api, Context* context, int sequences, int64_t n_ctx);

  /// For the calls from now on.
  void set(int sequence, std::span<uint8_t* const> pages);
  uint8_t* const* get() const { return reinterpret_cast<uint8_t* const*>(memory_.data()); }

 private:
  const Api& api_;
  Context* context_;
  int64_t stride_;
  DeviceBuffer memory_;
  std::vector<std::vector<uint8_t*>> known_;  // as they stand on the device
};

}  // namespace plumb::cuda
