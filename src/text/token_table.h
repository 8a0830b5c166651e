// From the bytes of a token to its id: an open-addressing hash table over views into the model file, built
// once while the vocabulary loads. A quarter million tokens take a few milliseconds; nothing is allocated per
// token.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace plumb {

/// 64-bit hash of short strings: two overlapping words for 1 to 16 bytes, folded multiplications beyond.
/// Collisions are resolved by comparison, so a hostile vocabulary can only cost time, bounded by the growth
/// of probes per slot.
inline uint64_t hash_bytes(std::string_view s) {
  auto mix = [](uint64_t a, uint64_t b) {
    const auto product = static_cast<__extension__ unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  auto word = [](const char* p, size_t n) {
    uint64_t w = 0;
    std::memcpy(&w, p, n);
    return w;
  };
  constexpr uint64_t k0 = 0x9E3779B97F4A7C15ull, k1 = 0xD6E8FEB86659FD93ull;
  const char* p = s.data();
  size_t n = s.size();
  uint64_t h = k0 ^ n;
  for (; n > 16; p += 16, n -= 16) h = mix(word(p, 8) ^ h, word(p + 8, 8) ^ k1);
  uint64_t a = 0, b = 0;
  if (n >= 8) {
    a = word(p, 8);
    b = word(p + n - 8, 8);
  } else if (n >= 4) {
    a = word(p, 4);
    b = word(p + n - 4, 4);
  } else if (n > 0) {
    a = word(p, 1) | word(p + n / 2, 1) << 8 | word(p + n - 1, 1) << 16;
  }
  return mix(mix(a ^ h, b ^ k1), k0 ^ h);
}

class TokenTable {
 public:
  /// Ids are the indices of `strings`, which must outlive the table. Empty strings are left out. Returns the
  /// first id whose string an earlier id holds already, or -1.
  int build(const std::vector<std::string_view>& strings) {
    strings_ = strings.data();
    size_t capacity = 16;
    while (capacity < strings.size() * 2) capacity *= 2;
    slots_.assign(capacity, Slot{0, -1});
    mask_ = capacity - 1;
    longest_ = 0;
    for (size_t i = 0; i < strings.size(); ++i) {
      if (strings[i].empty()) continue;
      if (strings[i].size() > longest_) longest_ = strings[i].size();
      const uint64_t hash = hash_bytes(strings[i]);
      size_t at = hash & mask_;
      for (; slots_[at].id >= 0; at = (at + 1) & mask_) {
        if (holds(slots_[at], hash, strings[i])) return static_cast<int>(i);
      }
      slots_[at] = {static_cast<uint32_t>(hash >> 32), static_cast<int>(i)};
    }
    return -1;
  }

  /// The id whose string this is, or -1.
  int find(std::string_view s) const {
    if (s.empty() || s.size() > longest_) return -1;
    const uint64_t hash = hash_bytes(s);
    for (size_t at = hash & mask_; slots_[at].id >= 0; at = (at + 1) & mask_) {
      if (holds(slots_[at], hash, s)) return slots_[at].id;
    }
    return -1;
  }

  size_t longest() const { return longest_; }  // bytes

 private:
  struct Slot {
    uint32_t tag;
    int id;
  };

  bool holds(const Slot& slot, uint64_t hash, std::string_view s) const {
    return slot.tag == static_cast<uint32_t>(hash >> 32) && strings_[slot.id] == s;
  }

  const std::string_view* strings_ = nullptr;
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  size_t longest_ = 0;
};

}  // namespace plumb
