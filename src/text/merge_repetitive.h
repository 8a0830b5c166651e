// Merging of long words that repeat few symbols: a run of one letter, of spaces, ten million invalid bytes.
// Symbols become codes of one byte in a small alphabet, and a round is one sweep over the word that joins all
// pairs of the least rank: no queue, and a byte per unit. Rounds have a budget in proportion to the word;
// what is left when it is spent goes on in merge_long.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

namespace plumb {

struct Merge {
  int rank;    // -1: the pair forms no symbol
  int symbol;  // what it forms
};

template <class Pairs>
class RepetitiveWord {
 public:
  explicit RepetitiveWord(Pairs& pairs) : pairs_(pairs) {}

  /// Takes in a word of `count` units, unit i being symbol_at(i); false when it has too many different ones.
  template <class At>
  bool assign(size_t count, const At& symbol_at) {
    codes_.reset(new uint8_t[count]);
    uint8_t* codes = codes_.get();
    for (size_t i = 0; i < count; ++i) {
      const int symbol = symbol_at(i);
      Recent& recent = recent_[static_cast<uint32_t>(symbol) % std::size(recent_)];
      if (recent.symbol != symbol) recent = {symbol, code_of(symbol, kMostAtStart)};
      if (recent.code < 0) return false;
      codes[i] = static_cast<uint8_t>(recent.code);
    }
    size_ = count;
    return true;
  }

  /// Joins what can be joined; false when it stopped early, in a state that merging by the rule passes
  /// through.
  bool merge() {
    for (int code = 0; code < letters(); ++code) rank_pairs_of(code);
    for (size_t budget = 8 * size();;) {
      const uint32_t rank = least_rank();
      if (rank == kNever) return true;
      const size_t before = size();
      if (before > budget || !sweep(rank)) return false;
      budget = budget - before + 16 * (before - size());
    }
  }

  size_t size() const { return size_; }
  int symbol(size_t i) const { return alphabet_[codes_[i]]; }

 private:
  static constexpr int kMost = 64, kMostAtStart = 32;  // symbols in the alphabet
  static constexpr uint32_t kNever = UINT32_MAX;       // the rank of pairs that do not join
  static constexpr int kUnknown = -1;
  static constexpr int kNone = 0xFF;
  struct Pair {
    uint32_t rank = kNever;
    int code = kUnknown;  // of what it forms
  };

  struct Recent {
    int symbol = -1, code = -1;
  };
  struct Ends {
    size_t kept, next;  // of codes_ during a sweep: [0, kept) are done, [next, size_) are to come
  };

  int letters() const { return static_cast<int>(alphabet_.size()); }

  // -1 when the alphabet would grow above `most`.
  int code_of(int symbol, int most) {
    const auto at = std::find(alphabet_.begin(), alphabet_.end(), symbol);
    const int code = static_cast<int>(at - alphabet_.begin());
    if (at == alphabet_.end()) {
      if (code == most) return -1;
      alphabet_.push_back(symbol);
    }
    return code;
  }

  Merge look_up(int left, int right) {
    return pairs_(alphabet_[static_cast<size_t>(left)], alphabet_[static_cast<size_t>(right)]);
  }

  void rank_pairs_of(int code) {
    for (int other = 0; other < letters(); ++other) {
      table_[code * kMost + other].rank = static_cast<uint32_t>(look_up(code, other).rank);
      table_[other * kMost + code].rank = static_cast<uint32_t>(look_up(other, code).rank);
      for (const int pair : {code * kMost + other, other * kMost + code}) {
        eager_[code] = std::min(eager_[code], table_[pair].rank);
        eager_[other] = std::min(eager_[other], table_[pair].rank);
      }
    }
  }

  // The code of what a pair forms, or -1 when the alphabet is full.
  int form(int left, int right) {
    Pair& pair = table_[left * kMost + right];
    if (pair.code == kUnknown) {
      const int before = letters();
      pair.code = code_of(look_up(left, right).symbol, kMost);
      if (letters() > before) rank_pairs_of(pair.code);
    }
    return pair.code;
  }

  // Of the pairs in the word.
  uint32_t least_rank() {
    std::fill_n(present_.get(), kMost * kMost, uint8_t{0});
    const uint8_t* codes = codes_.get();
    uint8_t* present = present_.get();
    for (size_t i = 1, count = size_; i < count; ++i) present[codes[i - 1] * kMost + codes[i]] = 1;
    uint32_t least = kNever;
    for (int i = 0; i < kMost * kMost; ++i) {
      if (present_[i]) least = std::min(least, table_[i].rank);
    }
    return least;
  }

  // Joins the pairs of this rank, which is the least, from left to right; where what they form joins a
  // neighbour at this rank or a better one, that comes first. False when the alphabet was full.
  bool sweep(uint32_t rank) {
    for (int i = 0; i < kMost * kMost; ++i) {
      const bool joins = present_[i] && table_[i].rank == rank;
      const int code = joins ? form(i / kMost, i % kMost) : kNone;
      if (code < 0) return false;
      joined_[i] = static_cast<uint8_t>(code);
    }
    uint8_t* codes = codes_.get();
    const uint8_t* joined = joined_.get();
    size_t kept = 0, next = 0;
    bool whole = true;
    while (whole && next + 1 < size_) {
      const uint8_t code = joined[codes[next] * kMost + codes[next + 1]];
      if (code == kNone) {
        codes[kept++] = codes[next++];
        continue;
      }
      codes[kept++] = code;
      next += 2;
      if (eager_[code] <= rank) {
        Ends ends{kept, next};
        whole = settle(rank, ends);
        kept = ends.kept;
        next = ends.next;
      }
    }
    std::copy(codes + next, codes + size_, codes + kept);
    size_ = kept + size_ - next;
    return whole;
  }

  // Joins the last symbol kept with its neighbours while their rank is as good.
  bool settle(uint32_t rank, Ends& ends) {
    uint8_t* codes = codes_.get();
    for (;;) {
      uint8_t& last = codes[ends.kept - 1];
      const uint32_t right = ends.next < size_ ? table_[last * kMost + codes[ends.next]].rank : kNever;
      const uint32_t left = ends.kept > 1 ? table_[codes[ends.kept - 2] * kMost + last].rank : kNever;
      if (std::min(left, right) > rank) return true;
      const int code = left <= right ? form(codes[ends.kept - 2], last) : form(last, codes[ends.next]);
      if (code < 0) return false;
      if (left <= right) {
        --ends.kept;
      } else {
        ++ends.next;
      }
      codes[ends.kept - 1] = static_cast<uint8_t>(code);
    }
  }

  Pairs& pairs_;
  std::unique_ptr<uint8_t[]> codes_;
  size_t size_ = 0;
  std::vector<int> alphabet_;  // the symbol of each code
  std::unique_ptr<Pair[]> table_ = std::make_unique<Pair[]>(kMost * kMost);
  std::unique_ptr<uint8_t[]> present_ =
      std::make_unique<uint8_t[]>(kMost * kMost);  // 1: the word has the pair
  std::unique_ptr<uint8_t[]> joined_ = std::make_unique<uint8_t[]>(kMost * kMost);  // code, or kNone
  Recent recent_[256];
  std::vector<uint32_t> eager_ = std::vector<uint32_t>(kMost, kNever);  // the least rank of a code's pairs
};

}  // namespace plumb
