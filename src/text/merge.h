// The merging loop that SentencePiece and byte-level BPE share: of all neighbouring symbols that form a
// symbol, join the pair of least rank, the leftmost first, until none is left. (Sennrich et al. 2016,
// arXiv:1508.07909; the order among equals is llama.cpp's.) Three engines with one answer: a scan for words,
// bucketed queues for texts of any length, and sweeps for long ones that repeat themselves
// (merge_repetitive.h).
#pragma once

#include <cstdint>
#include <vector>

#include "text/bucket_queue.h"
#include "text/merge_repetitive.h"

namespace plumb {

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

// Writes the symbols of the word in the form that merge_long takes.
template <class Pairs>
void spread(const RepetitiveWord<Pairs>& word, const int* units, int* symbols) {
  int at = 0;
  for (size_t i = 0; i < word.size(); ++i) {
    const int begin = at;
    at += units[word.symbol(i)];
    symbols[at - 1] = ~begin;
    symbols[begin] = word.symbol(i);
  }
}

/// Joins what can be joined in a word of `count` units, unit i being symbol_at(i), and gives the symbols to
/// `out`: out.expect(n), then out(s) n times. units[s] is how many units symbol s covers. `scratch` keeps its
/// memory between calls.
template <class At, class Pairs, class Out>
void merge_word(size_t count, const At& symbol_at, const int* units, Pairs& pairs, std::vector<int>& scratch,
                Out& out) {
  constexpr size_t kRepetitive = 4096;  // at least so long
  const int n = static_cast<int>(count);
  if (n <= kShortWord) {
    int symbols[kShortWord];
    for (int i = 0; i < n; ++i) symbols[i] = symbol_at(static_cast<size_t>(i));
    const int kept = merge_short(symbols, n, pairs);
    for (int i = 0; i < kept; ++i) out(symbols[i]);
    return;
  }
  bool started = false;
  if (count >= kRepetitive) {
    RepetitiveWord<Pairs> word(pairs);
    started = word.assign(count, symbol_at);
    if (started && word.merge()) {
      out.expect(word.size());
      for (size_t k = 0; k < word.size(); ++k) out(word.symbol(k));
      return;
    }
    if (started) {
      scratch.resize(count);
      spread(word, units, scratch.data());
    }
  }
  if (!started) {
    scratch.resize(count);
    for (size_t i = 0; i < count; ++i) scratch[i] = symbol_at(i);
  }
  const int kept = merge_long(scratch.data(), n, units, pairs);
  out.expect(static_cast<size_t>(kept));
  for (int i = 0; i < kept; ++i) out(scratch[static_cast<size_t>(i)]);
  if (scratch.capacity() > (1u << 20)) std::vector<int>().swap(scratch);
}

}  // namespace plumb
