// The units that SentencePiece-like vocabularies merge: UTF-8 characters, each space as U+2581. Also knows
// which units can stand side by side inside a symbol: where two cannot, no merge crosses, and the text falls
// into short segments that are merged one by one with the same result.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/utf8.h"

namespace plumb {

/// One unit: at most 4 bytes, by its first byte's promise, fewer where the text ends. Garbage is grouped the
/// same way.
struct Unit {
  char bytes[4] = {};
  int length = 0;

  std::string_view view() const { return {bytes, static_cast<size_t>(length)}; }
  uint64_t key() const {
    uint32_t word = 0;
    std::memcpy(&word, bytes, 4);
    return static_cast<uint64_t>(length) << 32 | word;
  }
};

/// Reads units off a text as if every space were U+2581.
class UnitReader {
 public:
  explicit UnitReader(std::string_view text) : text_(text) {}

  bool next(Unit& unit) {
    if (at_ == text_.size()) return false;
    unit = Unit{};
    if (part_ == 0 && text_[at_] == ' ') {
      unit = {{'\xE2', '\x96', '\x81'}, 3};
      ++at_;
      return true;
    }
    const uint8_t lead = take();
    unit.bytes[0] = static_cast<char>(lead);
    unit.length = 1;
    const int promised = utf8_length(lead);
    while (unit.length < promised && at_ < text_.size())
      unit.bytes[unit.length++] = static_cast<char>(take());
    return true;
  }

 private:
  uint8_t take() {
    const auto byte = static_cast<uint8_t>(text_[at_]);
    if (byte != ' ') {
      ++at_;
      return byte;
    }
    constexpr uint8_t kBlank[] = {0xE2, 0x96, 0x81};
    const uint8_t part = kBlank[part_];
    part_ = (part_ + 1) % 3;
    if (part_ == 0) ++at_;
    return part;
  }

  std::string_view text_;
  size_t at_ = 0;
  int part_ = 0;  // bytes of the present space's U+2581 already given out
};

/// Number of units of a symbol's text.
inline int count_units(std::string_view text) {
  int n = 0;
  for (size_t i = 0; i < text.size(); ++n)
    i += static_cast<size_t>(utf8_length(static_cast<uint8_t>(text[i])));
  return n;
}

/// The unit at `at` of a text whose spaces stand for themselves.
inline Unit unit_at(std::string_view text, size_t at) {
  Unit unit;
  const size_t left = text.size() - at;
  const auto promised = static_cast<size_t>(utf8_length(static_cast<uint8_t>(text[at])));
  unit.length = static_cast<int>(promised < left ? promised : left);
  for (int i = 0; i < unit.length; ++i) unit.bytes[i] = text[at + static_cast<size_t>(i)];
  return unit;
}

class UnitIndex {
 public:
  UnitIndex() : slots_(1024), neighbours_(kFilterBits / 64) {}

  int find(const Unit& unit) const {
    const uint64_t key = unit.key();
    for (size_t at = hash(key) & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].key == key) return slots_[at].symbol;
      if (slots_[at].key == 0) return -1;
    }
  }

  /// `unit` is not in the index yet.
  void insert(const Unit& unit, int symbol) {
    if (++size_ * 2 > slots_.size()) {
      std::vector<Slot> old(slots_.size() * 2);
      old.swap(slots_);
      for (const Slot& s : old) {
        if (s.key != 0) place(s);
      }
    }
    place({unit.key(), symbol});
  }

  void allow(const Unit& left, const Unit& right) {
    const uint64_t bit = filter_bit(left, right);
    neighbours_[bit / 64] |= uint64_t{1} << bit % 64;
  }

  /// False only when no allow() named the two; rarely true by accident, which costs time alone.
  bool may_join(const Unit& left, const Unit& right) const {
    const uint64_t bit = filter_bit(left, right);
    return (neighbours_[bit / 64] >> bit % 64 & 1) != 0;
  }

 private:
  static constexpr uint64_t kFilterBits = 1 << 20;
  struct Slot {
    uint64_t key = 0;
    int symbol = -1;
  };

  static uint64_t hash(uint64_t key) { return key * 0x9E3779B97F4A7C15ull >> 32; }
  static uint64_t filter_bit(const Unit& left, const Unit& right) {
    const uint64_t mixed = (left.key() * 0x9E3779B97F4A7C15ull) ^ (right.key() * 0xD6E8FEB86659FD93ull >> 7);
    return (mixed * 0x9E3779B97F4A7C15ull >> 40) % kFilterBits;
  }
  void place(const Slot& s) {
    size_t at = hash(s.key) & (slots_.size() - 1);
    while (slots_[at].key != 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = s;
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
  std::vector<uint64_t> neighbours_;  // a Bloom filter of one hash
};

}  // namespace plumb
