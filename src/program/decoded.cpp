#include "program/decoded.h"

namespace plumb {

void read_row(const WeightRef& w, int64_t r, float* out) {
  if (w.read) return w.read(w, r, out);
  decode(w.format, w.data + r * row_bytes(w.format, w.columns), w.columns, out);
}

std::shared_ptr<const std::vector<float>> DecodedWeights::get(const WeightRef& w, Pool& pool) {
  if (w.read && !right_) return nullptr;
  if (!w.read && right_) return right_->get(w, pool);
  const void* key = w.read ? static_cast<const void*>(&w) : w.data;
  const std::lock_guard lock(mutex_);
  if (const auto at = kept_.find(key); at != kept_.end()) return at->second;
  const int64_t bytes = w.rows * w.columns * 4;
  if (bytes > left_) return nullptr;
  left_ -= bytes;
  auto all = std::make_shared<std::vector<float>>(size_t(w.rows * w.columns));
  constexpr int kRows = 64;
  pool.each(int((w.rows + kRows - 1) / kRows), [&](int unit) {
    for (int64_t r = int64_t(unit) * kRows; r < std::min(w.rows, int64_t(unit + 1) * kRows); ++r)
      read_row(w, r, all->data() + r * w.columns);
  });
  return kept_[key] = std::move(all);
}

}  // namespace plumb
