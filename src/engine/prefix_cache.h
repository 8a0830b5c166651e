// Keys and values of texts that were read before, so that a prompt that begins as one of them need not be
// read again. A text is found by its ids, from the first on; which bits come out does not depend on what was
// found (docs/numerics.md). Full pages are shared between texts and with running sequences.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <vector>

#include "cpu/kv_cache.h"

namespace plumb {

class PrefixCache {
 public:
  /// Keeps at most `max_bytes`, the texts used last; 0: nothing.
  explicit PrefixCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  struct Hit {
    const KvCache* cache = nullptr;  // until the next put()
    int64_t length = 0;              // ids that agree
    int expected = -1;               // the text's first id that differs from the prompt's, if any
  };

  /// The text of this scope with the longest common beginning.
  Hit find(int scope, std::span<const int> prompt);

  /// Keeps a text; `cache` holds its ids. Replaces those of the scope that it begins with.
  void put(int scope, std::vector<int> ids, KvCache cache);

  void clear() { texts_.clear(); }

  int64_t bytes() const;  // a page counts once
  int64_t texts() const { return int64_t(texts_.size()); }
  int64_t evictions() const { return evictions_; }

 private:
  struct Text {
    int scope;
    std::vector<int> ids;
    KvCache cache;
  };

  int64_t max_bytes_, evictions_ = 0;
  std::list<Text> texts_;  // the one used last first
};

/// How many ids at the beginning are the same.
int64_t common_prefix(std::span<const int> a, std::span<const int> b);

}  // namespace plumb
