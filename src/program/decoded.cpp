#include "program/decoded.h"

#include <algorithm>

namespace plumb {

void read_row(const WeightRef& w, int64_t r, float* out) {
  if (w.read) return w.read(w, r, out);
  decode(w.format, w.data + r * row_bytes(w.format, w.columns), w.columns, out);
}

const float* DecodedWeights::get(const WeightRef& w, Pool& pool) {
  if (w.read && !right_) return nullptr;
  if (!w.read && right_) return right_->get(w, pool);
  const void* key = w.read ? static_cast<const void*>(&w) : w.data;
  const std::lock_guard lock(mutex_);
  if (const auto at = kept_.find(key); at != kept_.end()) return at->second;
  const int64_t bytes = w.rows * w.columns * 4;
  if (taken_ + bytes > most_) return nullptr;
  float* all = room(bytes);
  constexpr int kRows = 64;
  pool.each(int((w.rows + kRows - 1) / kRows), [&](int unit) {
    for (int64_t r = int64_t(unit) * kRows; r < std::min(w.rows, int64_t(unit + 1) * kRows); ++r)
      read_row(w, r, all + r * w.columns);
  });
  return kept_[key] = all;
}

void DecodedWeights::forget() {
  kept_.clear();
  chunk_ = 0, used_ = 0, taken_ = 0;
}

// Weights lie one behind the other in large chunks, for the sake of huge pages.
float* DecodedWeights::room(int64_t bytes) {
  constexpr int64_t kChunk = int64_t(64) << 20, kLine = 64;
  while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].bytes()) ++chunk_, used_ = 0;
  if (chunk_ == chunks_.size()) chunks_.emplace_back(std::max(kChunk, bytes));
  float* out = reinterpret_cast<float*>(chunks_[chunk_].data() + used_);
  used_ += (bytes + kLine - 1) / kLine * kLine;
  taken_ += bytes;
  return out;
}

}  // namespace plumb
