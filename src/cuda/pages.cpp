#include "cuda/pages.h"

#include <algorithm>

#include "base/error.h"

namespace plumb::cuda {

PageLayout::PageLayout(const Program& program, bool kv_f32) {
  for (const Node& n : program.nodes) {
    const auto* a = std::get_if<Attention>(&n.op);
    if (!a) continue;
    layers.resize(std::max(layers.size(), size_t(a->layer) + 1));
    const int64_t each = int64_t(kAttentionChunk) * program.shape(n.in[1]).size() * (kv_f32 ? 4 : 2);
    layers[size_t(a->layer)] = {bytes, bytes + each};
    bytes += 2 * each;
  }
}

PagePool::PagePool(const Api& api, Context* context, int64_t page_bytes)
    : api_(api), context_(context), page_bytes_(page_bytes) {}

std::shared_ptr<uint8_t> PagePool::make() {
  uint8_t* page = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) page = free_.back(), free_.pop_back();
  }
  if (!page)
    page = buffers_.emplace_back(api_, context_, page_bytes_, "keys and values of 256 tokens").data();
  return {page, [self = shared_from_this()](uint8_t* p) {
            const std::lock_guard lock(self->mutex_);
            self->free_.push_back(p);
          }};
}

std::shared_ptr<uint8_t> PagePool::copy(const uint8_t* page) {
  std::shared_ptr<uint8_t> to = make();
  check(api_.copy(context_, to.get(), page, page_bytes_), "copy keys and values");
  return to;
}

std::shared_ptr<uint8_t> PageSets::keep(Set set) {
  uint8_t* const first = set[0].get();
  const std::lock_guard lock(mutex_);
  sets_[first] = std::move(set);
  return {first, [self = shared_from_this()](uint8_t* page) {
            Set done;  // given back behind the lock
            const std::lock_guard release(self->mutex_);
            done = std::move(self->sets_[page]);
            self->sets_.erase(page);
          }};
}

std::shared_ptr<uint8_t> PageSets::make() {
  Set set;
  for (const auto& pool : pools_) set.push_back(pool->make());
  return keep(std::move(set));
}

std::shared_ptr<uint8_t> PageSets::copy(const uint8_t* page) {
  Set from, to;
  {
    const std::lock_guard lock(mutex_);
    from = sets_.at(page);
  }
  for (size_t r = 0; r < pools_.size(); ++r) to.push_back(pools_[r]->copy(from[r].get()));
  return keep(std::move(to));
}

uint8_t* PageSets::of(size_t rank, uint8_t* page) const {
  if (rank == 0) return page;
  const std::lock_guard lock(mutex_);
  return sets_.at(page)[rank].get();
}

int64_t PageSets::page_bytes() const {
  int64_t bytes = 0;
  for (const auto& pool : pools_) bytes += pool->page_bytes();
  return bytes;
}

PageTables::PageTables(const Api& api, Context* context, int sequences, int64_t n_ctx)
    : api_(api),
      context_(context),
      stride_(pages_for(n_ctx)),
      memory_(api, context, sequences * stride_ * int64_t(sizeof(uint8_t*)), "tables of pages"),
      known_(size_t(sequences)) {}

void PageTables::set(int sequence, std::span<uint8_t* const> pages) {
  std::vector<uint8_t*>& known = known_[size_t(sequence)];
  PLUMB_CHECK(int64_t(pages.size()) <= stride_);
  const size_t n = std::min(known.size(), pages.size());
  if (n == pages.size() && std::equal(pages.begin(), pages.end(), known.begin())) return;
  known.assign(pages.begin(), pages.end());
  uint8_t* to = memory_.data() + sequence * stride_ * int64_t(sizeof(uint8_t*));
  check(api_.upload(context_, to, known.data(), int64_t(known.size() * sizeof(uint8_t*))),
        "copy page tables");
}

}  // namespace plumb::cuda
