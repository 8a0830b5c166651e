#include "cpu/kv_cache.h"

#include <cstring>

#include "base/error.h"

namespace plumb {

KvCache::KvCache(const Program& program, KvTypes types) : types_(types) {
  for (const Node& node : program.nodes) {
    const Attention* a = std::get_if<Attention>(&node.op);
    if (!a) continue;
    if (layers_.size() <= size_t(a->layer)) layers_.resize(size_t(a->layer) + 1);
    const Shape kv = program.shape(node.in[1]);
    const int64_t k_bytes = kv_head_bytes(types.k, kv.dim), v_bytes = kv_head_bytes(types.v, kv.dim);
    layers_[size_t(a->layer)] = {page_bytes_, page_bytes_ + kv.heads * k_bytes, k_bytes, v_bytes, kv.dim};
    page_bytes_ += kv.heads * (k_bytes + v_bytes);
  }
}

KvCache::KvCache(std::shared_ptr<KvPages> source)
    : page_bytes_(source->page_bytes()), source_(std::move(source)) {}

std::shared_ptr<uint8_t> KvCache::make_page(Buffer::Pages pages) const {
  if (source_) return source_->make();
  const auto buffer = std::make_shared<Buffer>(page_bytes_, pages);
  return {buffer, buffer->data()};
}

void KvCache::add(std::shared_ptr<uint8_t> page) {
  page_data_.push_back(page.get());
  pages_.push_back(std::move(page));
}

void KvCache::add_copy(const uint8_t* page) {
  if (source_) return add(source_->copy(page));
  std::shared_ptr<uint8_t> to = make_page(Buffer::Pages::huge);
  std::memcpy(to.get(), page, size_t(page_bytes_));
  add(std::move(to));
}

void KvCache::reserve(int64_t length) {
  if (pages_.empty() && length > 0 && length < kManyTokens) add(make_page(Buffer::Pages::small));
  while (int64_t(pages_.size()) * kChunk < length) add(make_page(Buffer::Pages::huge));
}

void KvCache::share(const KvCache& other, int64_t length) {
  PLUMB_CHECK(other.page_bytes_ == page_bytes_ && other.types_ == types_ && this != &other);
  PLUMB_CHECK(length <= int64_t(other.pages_.size()) * kChunk);
  const size_t whole = size_t(length / kChunk);
  pages_.assign(other.pages_.begin(), other.pages_.begin() + int64_t(whole));
  page_data_.assign(other.page_data_.begin(), other.page_data_.begin() + int64_t(whole));
  if (length % kChunk > 0) add_copy(other.page_data_[whole]);
}

void KvCache::truncate(int64_t length) {
  const size_t whole = size_t(length / kChunk);
  for (size_t i = whole; i < pages_.size(); ++i) {
    if (pages_[i].use_count() == 1) continue;
    const std::shared_ptr<uint8_t> shared = pages_[i];
    pages_.resize(i), page_data_.resize(i);
    if (i == whole && length % kChunk > 0) add_copy(shared.get());
  }
}

KvHead KvCache::head(int layer, int kv_head) const {
  const Layer& l = layers_[size_t(layer)];
  return {page_data_.data(), l.k + kv_head * l.k_bytes, l.v + kv_head * l.v_bytes, types_.k, types_.v, l.dim};
}

}  // namespace plumb
