#include "cpu/kv_cache.h"

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

void KvCache::reserve(int64_t length) {
  while (int64_t(pages_.size()) * kChunk < length) {
    pages_.emplace_back(page_bytes_);
    page_data_.push_back(pages_.back().data());
  }
}

KvHead KvCache::head(int layer, int kv_head) const {
  const Layer& l = layers_[size_t(layer)];
  return {page_data_.data(), l.k + kv_head * l.k_bytes, l.v + kv_head * l.v_bytes, types_.k, types_.v, l.dim};
}

}  // namespace plumb
