// Attention of the query heads that share one kv head, for consecutive tokens of one sequence
// (docs/numerics.md):
//
//   score = scale * (fma over dim, ascending)
//   per chunk of 256 positions: largest score, e = exp(score - largest), their sum in 16 lanes (key mod 16)
//   and a fixed tree, o = fma over ascending keys of e v; chunks joined in ascending order; one division at
//   the end.
//
// Masked keys are skipped by position, never by value. A row is one query head of one token. A chunk's keys
// and values are turned into f32 once for all rows of the call; rows share loads but never a sum, so how many
// are taken at once changes no bit. Neither does who computes a chunk: its results may be kept and joined
// later.
#pragma once

#include <limits>

#include "cpu/attention_tiles.h"
#include "cpu/simd/math.h"

namespace plumb {
namespace {

// Keys of a chunk that a row sees: [first, last); {0, 0} if none.
struct Range {
  int first, last;
};

struct AttentionWork {
  float* q;        // tiles of kScoreRows rows, each [dim][rows]
  float* e;        // [rows][256]
  float* chunk_o;  // [rows][dim], of the current chunk
  float* o;        // [rows][dim], of the chunks before
  float *k, *v;    // 32 keys; 128 values of 64 columns
  int rows, dim;   // dim padded
  Range range[kAttentionRows];
  float chunk_largest[kAttentionRows], chunk_sum[kAttentionRows];
  float largest[kAttentionRows], sum[kAttentionRows];  // sum 0: no chunk yet
};

inline Range visible(const AttentionArgs& a, int token, int64_t chunk) {
  const int64_t pos = a.first_pos + token, start = chunk * kChunk;
  const int64_t first = a.window > 0 && pos - a.window + 1 > 0 ? pos - a.window + 1 : 0;
  const auto clamp = [&](int64_t p) { return int(p < start ? 0 : p > start + kChunk ? kChunk : p - start); };
  const Range r = {clamp(first), clamp(pos + 1)};
  return r.first < r.last ? r : Range{0, 0};
}

/// What any of the rows sees, and what all of them see; empty ranges are {0, 0}.
inline void combine(const Range* range, int rows, Range* any, Range* all) {
  *any = {kChunk, 0}, *all = {0, kChunk};
  for (int r = 0; r < rows; ++r) {
    all->first = all->first > range[r].first ? all->first : range[r].first;
    all->last = all->last < range[r].last ? all->last : range[r].last;
    if (range[r].last == 0) continue;
    any->first = any->first < range[r].first ? any->first : range[r].first;
    any->last = any->last > range[r].last ? any->last : range[r].last;
  }
  if (any->last == 0) *any = {0, 0};
  if (all->first >= all->last) *all = {any->last, any->last};
}

/// Few rows read f16 keys where they lie: a copy would cost more than it saves.
template <class V>
bool reads_keys_in_place(const AttentionArgs& a, const AttentionWork& w) {
  return a.kv->k_type == KvType::f16 && w.rows <= kScoreRows<V>;
}

template <class V>
void scores_in_place(const AttentionArgs& a, AttentionWork& w, const uint8_t* k) {
  constexpr bool kWide = V::kRegisters == 32;
  Range any, all;
  combine(w.range, w.rows, &any, &all);
  with_rows<kScoreRows<V>>(w.rows, [&](auto rows) {
    constexpr int kRows = rows, kBlocks = !kWide ? 1 : kRows > 6 ? 2 : kRows > 1 ? 4 : 8;
    const int first = any.first / (16 * kBlocks) * kBlocks;
    for (int b = first; 16 * b < any.last; b += kBlocks) {
      score_tile<V, kRows, kBlocks, true>(w.q, k + int64_t(b) * a.dim * 32, a.dim, a.scale, w.e + 16 * b);
    }
  });
}

template <class V>
void scores(const AttentionArgs& a, AttentionWork& w, const uint8_t* k) {
  if (reads_keys_in_place<V>(a, w)) return scores_in_place<V>(a, w, k);
  constexpr int kBlocks = kScoreBlocks<V>, kStep = 2;  // blocks read at once
  for (int b = 0; b < kChunk / 16; b += kStep) {
    const float* keys = nullptr;
    for (int first = 0; first < w.rows; first += kScoreRows<V>) {
      const int count = w.rows - first < kScoreRows<V> ? w.rows - first : kScoreRows<V>;
      Range any, all;
      combine(w.range + first, count, &any, &all);
      if (any.last <= 16 * b || any.first >= 16 * (b + kStep)) continue;
      if (!keys && a.kv->k_type == KvType::f32) {
        keys = reinterpret_cast<const float*>(k) + int64_t(b) * a.dim * 16;
      } else if (!keys) {
        read_keys<V>(*a.kv, k, b, kStep, w.k), keys = w.k;
      }
      const float* q = w.q + int64_t(first) * a.dim;
      float* e = w.e + first * kChunk + 16 * b;
      with_rows<kScoreRows<V>>(count, [&](auto rows) {
        for (int s = 0; s < kStep; s += kBlocks) {
          score_tile<V, rows, kBlocks, false>(q, reinterpret_cast<const uint8_t*>(keys + s * a.dim * 16),
                                              a.dim, a.scale, e + 16 * s);
        }
      });
    }
  }
}

// Turns one row's scores of a chunk into e; returns the largest score and the sum of e.
template <class V>
void softmax_chunk(float* e, Range range, float* largest, float* sum) {
  using F = typename V::F;
  const F low = V::set1(-std::numeric_limits<float>::infinity());
  const int first_block = range.first / 16, last_block = (range.last + 15) / 16;
  F top[4] = {low, low, low, low};  // of every fourth block
  for (int b = first_block; b < last_block; ++b) {
    F s = V::load(e + 16 * b);
    if (b == first_block || b == last_block - 1) {
      s = V::select_lanes(range.first - 16 * b, range.last - 16 * b, s, low);
      V::store(e + 16 * b, s);
    }
    top[b % 4] = V::max(top[b % 4], s);
  }
  float lanes[16];
  V::store(lanes, V::max(V::max(top[0], top[1]), V::max(top[2], top[3])));
  const float m = largest16(lanes);
  F total = V::zero();
  for (int b = first_block; b < last_block; ++b) {
    const F x = exp_negative<V>(V::sub(V::load(e + 16 * b), V::set1(m)));
    V::store(e + 16 * b, x);
    total = V::add(total, x);
  }
  V::store(lanes, total);
  *largest = m;
  *sum = tree16(lanes);
}

/// Adds the values [from, to) of C vectors of columns to chunk_o; v's first element is key 0's.
template <class V, int C, bool kHalf>
void weigh_columns(AttentionWork& w, const uint8_t* v, int64_t v_stride, int column, int from, int to) {
  const auto clip = [&](Range r) {
    return Range{r.first > from ? r.first : from, r.last < to ? r.last : to};
  };
  for (int first = 0; first < w.rows; first += kValueRows<V>) {
    const int count = w.rows - first < kValueRows<V> ? w.rows - first : kValueRows<V>;
    Range any, all;
    combine(w.range + first, count, &any, &all);
    float* o = w.chunk_o + int64_t(first) * w.dim + column;
    const float* e = w.e + first * kChunk;
    const auto alone = [&](int begin, int end) {  // keys that not every row sees
      if (begin >= end) return;
      for (int r = 0; r < count; ++r) {
        const Range own = w.range[first + r];
        const Range keys = clip({own.first > begin ? own.first : begin, own.last < end ? own.last : end});
        if (keys.first < keys.last)
          value_tile<V, 1, C, kHalf>(e + r * kChunk, v, v_stride, keys.first, keys.last, o + r * w.dim,
                                     w.dim);
      }
    };
    alone(any.first, all.first);
    const Range keys = clip(all);
    if (keys.first < keys.last) {
      with_rows<kValueRows<V>>(count, [&](auto rows) {
        value_tile<V, rows, C, kHalf>(e, v, v_stride, keys.first, keys.last, o, w.dim);
      });
    }
    alone(all.last, any.last);
  }
}

template <class V>
void values(const AttentionArgs& a, AttentionWork& w, const uint8_t* v) {
  constexpr int kMany = kValueVectors<V>, kKeys = 128;
  std::memset(w.chunk_o, 0, size_t(w.rows) * w.dim * 4);
  Range any, all;
  combine(w.range, w.rows, &any, &all);
  const bool in_place =
      a.kv->v_type == KvType::f32 || (a.kv->v_type == KvType::f16 && w.rows <= kValueRows<V>);
  for (int column = 0; column < w.dim;) {
    const bool many = column + 16 * kMany <= w.dim;
    const int vectors = many ? kMany : 1;
    if (in_place) {
      const bool half = a.kv->v_type == KvType::f16;
      const uint8_t* from = v + int64_t(column) * (half ? 2 : 4);
      const auto weigh = half   ? many ? weigh_columns<V, kMany, true> : weigh_columns<V, 1, true>
                           : many ? weigh_columns<V, kMany, false>
                                : weigh_columns<V, 1, false>;
      weigh(w, from, w.dim, column, any.first, any.last);
    } else {
      for (int first = any.first; first < any.last; first += kKeys) {
        const int last = first + kKeys < any.last ? first + kKeys : any.last;
        read_values<V>(*a.kv, v, first, last, column, vectors, w.v);
        const auto* from = reinterpret_cast<const uint8_t*>(w.v - int64_t(first) * 16 * vectors);
        const auto weigh = many ? weigh_columns<V, kMany, false> : weigh_columns<V, 1, false>;
        weigh(w, from, 16 * vectors, column, first, last);
      }
    }
    column += 16 * vectors;
  }
}

/// Joins a later chunk into (largest, sum, o [dim]).
template <class V>
void join(float* largest, float* sum, float* o, float chunk_largest, float chunk_sum, const float* chunk_o,
          int dim) {
  if (*sum == 0) {  // this row's first chunk
    *largest = chunk_largest, *sum = chunk_sum;
    std::memcpy(o, chunk_o, size_t(dim) * 4);
    return;
  }
  const float m = *largest > chunk_largest ? *largest : chunk_largest;
  float factors[16] = {*largest - m, chunk_largest - m};
  V::store(factors, exp_negative<V>(V::load(factors)));
  *largest = m;
  *sum = __builtin_fmaf(chunk_sum, factors[1], *sum * factors[0]);
  for (int d = 0; d < dim; d += 16) {
    V::store(o + d,
             V::fma(V::load(chunk_o + d), V::set1(factors[1]), V::mul(V::load(o + d), V::set1(factors[0]))));
  }
}

inline void finish(const float* o, float sum, int dim, float* out) {
  const float inverse = 1 / sum;
  for (int d = 0; d < dim; ++d) out[d] = o[d] * inverse;
}

template <class V>
void attention_chunk(const AttentionArgs& a, AttentionWork& w, int first_token, int64_t chunk) {
  bool seen = false;
  for (int r = 0; r < w.rows; ++r) {
    w.range[r] = visible(a, first_token + r / a.group, chunk);
    seen = seen || w.range[r].last > 0;
  }
  if (!seen) return;
  scores<V>(a, w, a.kv->k(chunk));
  for (int r = 0; r < w.rows; ++r) {
    if (w.range[r].last > 0)
      softmax_chunk<V>(w.e + r * kChunk, w.range[r], &w.chunk_largest[r], &w.chunk_sum[r]);
  }
  values<V>(a, w, a.kv->v(chunk));
  for (int r = 0; r < w.rows; ++r) {
    if (w.range[r].last == 0) continue;
    join<V>(&w.largest[r], &w.sum[r], w.o + int64_t(r) * w.dim, w.chunk_largest[r], w.chunk_sum[r],
            w.chunk_o + int64_t(r) * w.dim, w.dim);
  }
}

/// The query heads [head, head + heads) of tokens [first, first + tokens): tokens * heads <= kAttentionRows,
/// and one token only unless heads is the whole group.
template <class V>
void attention_rows(const AttentionArgs& a, AttentionWork& w, int first, int tokens, int head, int heads) {
  const auto at = [&](int r) { return (first + r / heads) * a.q_stride + (head + r % heads) * a.dim; };
  w.rows = tokens * heads;
  for (int t = 0; t < w.rows; t += kScoreRows<V>) {
    const int count = w.rows - t < kScoreRows<V> ? w.rows - t : kScoreRows<V>;
    for (int r = 0; r < count; ++r) {
      const float* from = a.q + at(t + r);
      float* to = w.q + int64_t(t) * a.dim + r;
      for (int d = 0; d < a.dim; ++d) to[d * count] = from[d];
    }
  }
  for (int r = 0; r < w.rows; ++r) w.sum[r] = 0;
  const int64_t lowest = a.first_pos + first, pos = lowest + tokens - 1;
  const int64_t from = a.window > 0 && lowest - a.window + 1 > 0 ? lowest - a.window + 1 : 0;
  if (a.partial) {
    attention_chunk<V>(a, w, first, a.chunk);
    for (int r = 0; r < w.rows; ++r) {
      float* to = a.partial + (head + r) * partial_floats(a.dim);
      to[0] = w.largest[r], to[1] = w.sum[r];
      std::memcpy(to + 16, w.o + int64_t(r) * w.dim, size_t(w.dim) * 4);
    }
    return;
  }
  for (int64_t chunk = from / kChunk; chunk <= pos / kChunk; ++chunk) attention_chunk<V>(a, w, first, chunk);
  for (int r = 0; r < w.rows; ++r) {
    float* out = a.out + (first + r / heads) * a.out_stride + (head + r % heads) * a.dim;
    finish(w.o + int64_t(r) * w.dim, w.sum[r], a.dim, out);
  }
}

template <class V>
void attention(const AttentionArgs& a) noexcept {
  AttentionWork w;
  w.dim = kv_dim(a.dim);
  w.q = reinterpret_cast<float*>(a.scratch);
  w.e = w.q + kAttentionRows * w.dim;
  w.chunk_o = w.e + kAttentionRows * kChunk;
  w.o = w.chunk_o + kAttentionRows * w.dim;
  w.k = w.o + kAttentionRows * w.dim;
  w.v = w.k + 32 * w.dim;
  const int at_once = kAttentionRows / a.group;
  if (at_once == 0) {  // a group larger than the rows: token by token, in pieces
    AttentionArgs piece = a;
    for (int head = 0; head < a.group; head += kAttentionRows) {
      const int heads = a.group - head < kAttentionRows ? a.group - head : kAttentionRows;
      piece.group = kAttentionRows;  // all rows are of the one token
      for (int t = 0; t < a.tokens; ++t) attention_rows<V>(piece, w, t, 1, head, heads);
    }
    return;
  }
  for (int t = 0; t < a.tokens; t += at_once)
    attention_rows<V>(a, w, t, a.tokens - t < at_once ? a.tokens - t : at_once, 0, a.group);
}

/// Joins the partial results of chunks in ascending order, as attention() does with its own.
template <class V>
void attention_merge(const MergeArgs& a) noexcept {
  const int dim = kv_dim(a.dim);
  for (int r = 0; r < a.group; ++r) {
    float* first = a.partials + r * partial_floats(a.dim);
    for (int c = 1; c < a.chunks; ++c) {
      const float* next = first + c * a.stride;
      join<V>(&first[0], &first[1], first + 16, next[0], next[1], next + 16, dim);
    }
    finish(first + 16, first[1], a.dim, a.out + r * a.dim);
  }
}

}  // namespace
}  // namespace plumb
