#include "cpu/kv_cache.h"

namespace plumb {

KvCache::KvCache(const Program& program, KvType type) : type_(type) {
  for (const Node& node : program.nodes) {
    const Attention* a = std::get_if<Attention>(&node.op);
    if (!a) continue;
    if (layers_.size() <= size_t(a->layer)) layers_.resize(size_t(a->layer) + 1);
    const Shape kv = program.shape(node.in[1]);
    layers_[size_t(a->layer)] = {page_bytes_, kv_head_bytes(type, kv.dim), kv.heads, kv.dim};
    page_bytes_ += 2 * kv.heads * kv_head_bytes(type, kv.dim);
  }
}

void KvCache::reserve(int64_t length) {
  while (int64_t(pages_.size()) * kChunk < length) {
    pages_.emplace_back(page_bytes_);
    page_data_.push_back(pages_.back().data());
  }
}

KvHead KvCache::head(int layer, int kv_head) const {
  const Layer& l = layers_[size_t(layer)];
  const int64_t k = l.offset + kv_head * l.head_bytes;
  return {page_data_.data(), k, k + l.heads * l.head_bytes, type_, l.dim};
}

}  // namespace plumb
