// The merging loop that SentencePiece and byte-level BPE share: of all neighbouring symbols that form a
// symbol, join the pair of least rank, the leftmost first, until none is left. (Sennrich et al. 2016,
// arXiv:1508.07909; the order among equals is llama.cpp's.) Two engines with one answer: a scan for words,
// and bucketed queues for texts of any length.
#pragma once

#include <cstdint>
#include <vector>

#include "text/bucket_queue.h"

namespace plumb {

struct Merge {
  int rank;    // -1: the pair forms no symbol
  int symbol;  // what it forms
};

/// Rescans the ranks after each join. Quadratic, and the fastest for words. Returns how many symbols are
/// left.
template <class Pairs>
int merge_short(int* symbols, int count, Pairs& pairs) {
  constexpr int kMost = 40;
  Merge next[kMost];
  for (int i = 0; i + 1 < count; ++i) next[i] = pairs(symbols[i], symbols[i + 1]);
  while (count > 1) {
    int best = 0;
    for (int i = 1; i + 1 < count; ++i) {  // as unsigned, -1 is the worst
      if (static_cast<uint32_t>(next[i].rank) < static_cast<uint32_t>(next[best].rank)) best = i;
    }
    if (next[best].rank < 0) break;
    symbols[best] = next[best].symbol;
    --count;
    for (int i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (int i = best + 1; i + 1 < count; ++i) next[i] = next[i + 1];
    if (best > 0) next[best - 1] = pairs(symbols[best - 1], symbols[best]);
    if (best + 1 < count) next[best] = pairs(symbols[best], symbols[best + 1]);
  }
  return count;
}

inline constexpr int kShortWord = 32;

/// Where the symbol begins that ends just before position p.
inline int symbol_before(const int* symbols, int p) { return symbols[p - 1] < 0 ? ~symbols[p - 1] : p - 1; }

/// Queues the pairs that the symbols at `fresh` form with their neighbours, each once.
template <class Pairs>
void queue_pairs_of(const std::vector<int>& fresh, const int* symbols, int count, const int* units,
                    Pairs& pairs, BucketQueue& queue) {
  int pushed = -1;  // the last position whose pair to the right is queued
  for (int left : fresh) {
    const int s = symbols[left];
    if (s < 0) continue;
    if (left > 0 && symbol_before(symbols, left) != pushed) {
      const Merge l = pairs(symbols[symbol_before(symbols, left)], s);
      if (l.rank >= 0) queue.push(l.rank, symbol_before(symbols, left));
    }
    const int end = left + units[s];
    if (end < count) {
      const Merge r = pairs(s, symbols[end]);
      if (r.rank >= 0) queue.push(r.rank, left);
    }
    pushed = left;
  }
}

/// The same for any length, in O(n) queue operations and 4 bytes per unit besides the queues. The symbol that
/// covers units [p, q) stands at symbols[p]; for q - p > 1 symbols[q - 1] holds ~p, so that its right
/// neighbour finds it; the input has the same form.
template <class Pairs>
int merge_long(int* symbols, int count, const int* units, Pairs& pairs) {
  BucketQueue queue;
  std::vector<int> fresh;  // where this sweep has joined, ascending but for late arrivals
  for (int p = 0, next = 0; p < count; p = next) {
    next = p + units[symbols[p]];
    if (next == count) break;
    const Merge m = pairs(symbols[p], symbols[next]);
    if (m.rank >= 0) queue.push(m.rank, p);
  }
  while (queue.top() >= 0) {
    const int rank = queue.top();
    // One sweep: all pairs of this rank. New pairs of a worse rank wait for its end, when most of those that
    // the sweep itself undoes are gone; the others are queued at once.
    while (queue.top() == rank) {
      const int left = queue.pop();
      const int a = symbols[left];
      if (a < 0) continue;  // joined to its left neighbour meanwhile
      const int right = left + units[a];
      if (right >= count) continue;
      const int b = symbols[right];
      const Merge m = pairs(a, b);
      if (m.rank != rank) continue;  // a neighbour has changed; its new pair has been queued
      const int end = right + units[b];
      symbols[right] = -1;
      symbols[left] = m.symbol;
      symbols[end - 1] = ~left;
      fresh.push_back(left);
      if (pairs.least_rank(m.symbol) > rank) continue;
      if (left > 0) {
        const Merge l = pairs(symbols[symbol_before(symbols, left)], m.symbol);
        if (l.rank >= 0 && l.rank <= rank) queue.push(l.rank, symbol_before(symbols, left));
      }
      if (end < count) {
        const Merge r = pairs(m.symbol, symbols[end]);
        if (r.rank >= 0 && r.rank <= rank) queue.push(r.rank, left);
      }
    }
    queue_pairs_of(fresh, symbols, count, units, pairs, queue);
    fresh.clear();
  }
  int kept = 0;
  for (int p = 0; p < count;) {
    const int s = symbols[p];
    symbols[kept++] = s;
    p += units[s];
  }
  return kept;
}

/// Joins in place what can be joined; each symbol at the start is one unit. units[s] is how many units symbol
/// s covers.
template <class Pairs>
void merge_all(std::vector<int>& symbols, const int* units, Pairs& pairs) {
  const int count = static_cast<int>(symbols.size());
  const int kept = count <= kShortWord ? merge_short(symbols.data(), count, pairs)
                                       : merge_long(symbols.data(), count, units, pairs);
  symbols.resize(static_cast<size_t>(kept));
}

}  // namespace plumb
