#include "engine/prefix_cache.h"

#include <algorithm>
#include <unordered_set>

namespace plumb {

int64_t common_prefix(std::span<const int> a, std::span<const int> b) {
  const size_t n = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + int64_t(n), b.begin()).first - a.begin();
}

PrefixCache::Hit PrefixCache::find(int scope, std::span<const int> prompt) {
  auto best = texts_.end();
  int64_t length = 0;
  for (auto it = texts_.begin(); it != texts_.end(); ++it) {
    if (it->scope != scope) continue;
    if (const int64_t n = common_prefix(it->ids, prompt); n > length) best = it, length = n;
  }
  if (best == texts_.end()) return {};
  texts_.splice(texts_.begin(), texts_, best);
  const bool differs = size_t(length) < best->ids.size() && size_t(length) < prompt.size();
  return {&best->cache, length, differs ? best->ids[size_t(length)] : -1};
}

void PrefixCache::put(int scope, std::vector<int> ids, KvCache cache) {
  if (max_bytes_ == 0 || ids.empty()) return;
  for (auto it = texts_.begin(); it != texts_.end();) {
    const int64_t n = it->scope == scope ? common_prefix(it->ids, ids) : 0;
    if (n == int64_t(ids.size())) {  // known, or the beginning of what is
      texts_.splice(texts_.begin(), texts_, it);
      return;
    }
    it = n > 0 && n == int64_t(it->ids.size()) ? texts_.erase(it) : std::next(it);
  }
  texts_.push_front({scope, std::move(ids), std::move(cache)});
  while (!texts_.empty() && bytes() > max_bytes_) texts_.pop_back(), ++evictions_;
}

int64_t PrefixCache::bytes() const {
  std::unordered_set<const uint8_t*> pages;
  int64_t page = 0;
  for (const Text& t : texts_) {
    pages.insert(t.cache.pages().begin(), t.cache.pages().end());
    page = t.cache.page_bytes();
  }
  return page * int64_t(pages.size());
}

}  // namespace plumb
