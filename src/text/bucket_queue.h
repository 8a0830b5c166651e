// A queue of (rank, position), least rank first, then least position. Tokenizer merges use few ranks at many
// positions and push positions mostly in order, so each rank keeps a list of positions, sorted when it is
// first popped from, and a small heap of latecomers. Ten million pushes and pops take some 0.1 s where one
// binary heap takes seconds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace plumb {

class BucketQueue {
 public:
  void push(int rank, int position) {
    if (recent_ < 0 || buckets_[static_cast<size_t>(recent_)].rank != rank) recent_ = index_of(rank);
    Bucket& b = buckets_[static_cast<size_t>(recent_)];
    if (!b.active) activate(b);
    if (position < b.last) {
      if (b.opened) {
        b.late.push_back(position);
        std::push_heap(b.late.begin(), b.late.end(), std::greater<int>());
        return;
      }
      b.sorted = false;
    }
    b.last = position;
    append(b, position);
  }

  /// The least rank that holds something, or -1.
  int top() const { return active_.empty() ? -1 : active_.front(); }

  /// Takes the least position of rank top(), which there must be.
  int pop() {
    if (first_ < 0) first_ = find(active_.front());
    Bucket& b = buckets_[static_cast<size_t>(first_)];
    if (!b.opened) open(b);
    int position = 0;
    if (!b.head || (!b.late.empty() && b.late.front() < b.head->items[b.read])) {
      std::pop_heap(b.late.begin(), b.late.end(), std::greater<int>());
      position = b.late.back();
      b.late.pop_back();
    } else {
      position = take(b);
    }
    if (!b.head && b.late.empty()) {
      std::pop_heap(active_.begin(), active_.end(), std::greater<int>());
      active_.pop_back();
      b.active = false;
      first_ = -1;
    }
    return position;
  }

 private:
  static constexpr int kItems = 62;
  static constexpr int kBlocksPerChunk = 256;
  struct Block {
    Block* next;
    int count;
    int items[kItems];
  };
  struct Bucket {
    int rank = 0;
    Block *head = nullptr, *tail = nullptr;
    int read = 0;   // in the head block
    int last = -1;  // the last position appended
    bool active = false, opened = false, sorted = true;
    std::vector<int> late = {};
  };

  void activate(Bucket& b) {
    b.active = true;
    b.opened = false;
    b.sorted = true;
    b.last = -1;
    if (active_.empty() || b.rank < active_.front()) first_ = -1;
    active_.push_back(b.rank);
    std::push_heap(active_.begin(), active_.end(), std::greater<int>());
  }

  void append(Bucket& b, int position) {
    if (!b.tail || b.tail->count == kItems) {
      Block* fresh = new_block();
      (b.tail ? b.tail->next : b.head) = fresh;
      b.tail = fresh;
    }
    b.tail->items[b.tail->count++] = position;
  }

  int take(Bucket& b) {
    Block* h = b.head;
    const int position = h->items[b.read++];
    if (b.read == h->count) {
      b.head = h->next;
      if (!b.head) b.tail = nullptr;
      b.read = 0;
      h->next = free_;
      free_ = h;
    }
    return position;
  }

  Block* new_block() {
    if (!free_) {
      chunks_.push_back(
          std::unique_ptr<Block[]>(new Block[kBlocksPerChunk]));  // not zeroed: count says what is valid
      for (int i = kBlocksPerChunk - 1; i >= 0; --i) {
        Block* b = chunks_.back().get() + i;
        b->next = free_;
        free_ = b;
      }
    }
    Block* b = free_;
    free_ = b->next;
    b->next = nullptr;
    b->count = 0;
    return b;
  }

  void open(Bucket& b) {
    b.opened = true;
    if (b.sorted) return;
    std::vector<int> all;
    for (Block* i = b.head; i; i = i->next) {
      all.insert(all.end(), i->items, i->items + i->count);
    }
    std::sort(all.begin(), all.end());
    size_t at = 0;
    for (Block* i = b.head; i; i = i->next) {
      for (int k = 0; k < i->count; ++k) i->items[k] = all[at++];
    }
    b.last = all.back();
    b.sorted = true;
  }

  int index_of(int rank) {
    if (buckets_.size() * 2 >= slots_.size()) grow();
    const int at = find(rank);
    if (at >= 0) return at;
    slots_[slot_] = static_cast<int>(buckets_.size());
    buckets_.emplace_back();
    buckets_.back().rank = rank;
    return slots_[slot_];
  }

  // The bucket of a rank, or -1; leaves the slot where the search ended in slot_.
  int find(int rank) {
    slot_ = (static_cast<uint32_t>(rank) * 0x9E3779B1u >> 7) & (slots_.size() - 1);
    while (slots_[slot_] >= 0 && buckets_[static_cast<size_t>(slots_[slot_])].rank != rank) {
      slot_ = (slot_ + 1) & (slots_.size() - 1);
    }
    return slots_[slot_];
  }

  void grow() {
    slots_.assign(slots_.empty() ? 64 : slots_.size() * 2, -1);
    for (size_t i = 0; i < buckets_.size(); ++i) {
      find(buckets_[i].rank);
      slots_[slot_] = static_cast<int>(i);
    }
  }

  std::vector<Bucket> buckets_;
  std::vector<int> slots_;  // hash of rank -> index of bucket, -1 empty
  size_t slot_ = 0;
  std::vector<int> active_;  // heap of ranks that hold something
  std::vector<std::unique_ptr<Block[]>> chunks_;
  Block* free_ = nullptr;
  int recent_ = -1;  // the bucket pushed to last
  int first_ = -1;   // the bucket of top(), once known
};

}  // namespace plumb
