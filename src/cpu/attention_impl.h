// Attention of the query heads that share one kv head, for consecutive tokens of one sequence
// (docs/numerics.md):
//
//   score = scale * (fma over dim, ascending)
//   per chunk of 256 positions: largest score, e = exp(score - largest), their sum in 16 lanes (key mod 16)
//   and a fixed tree, o = fma over ascending keys of e v; chunks joined in ascending order; one division at
//   the end.
//
// Masked keys are skipped by position, never by value. A row is one query head of one token; rows share the
// loads of K and V but never a sum, so how many are taken at once changes no bit.
#pragma once

#include <limits>

#include "cpu/kernels.h"
#include "cpu/simd/math.h"

namespace plumb {
namespace {

constexpr int kAttentionRows = 8;

// Scratch of one call, in floats: e [rows][256], o [rows][dim], new o [rows][dim].
struct AttentionWork {
  float *e, *o, *chunk_o;
  int dim;  // padded
  float largest[kAttentionRows], sum[kAttentionRows];
};

template <class V>
typename V::F load_kv(KvType type, const uint8_t* p, int64_t element) {
  return type == KvType::f16 ? V::from_half(p + element * 2)
                             : V::load(reinterpret_cast<const float*>(p) + element);
}

// Keys of a chunk that a row sees: [first, last).
struct Range {
  int first, last;
};
inline Range visible(const AttentionArgs& a, int token, int64_t chunk) {
  const int64_t pos = a.first_pos + token, start = chunk * kChunk;
  const int64_t first = a.window > 0 && pos - a.window + 1 > 0 ? pos - a.window + 1 : 0;
  const auto clamp = [&](int64_t p) { return int(p < start ? 0 : p > start + kChunk ? kChunk : p - start); };
  return {clamp(first), clamp(pos + 1)};
}

// Scores of R rows against the chunk's blocks of 16 keys [first_block, last_block).
template <class V, int R, KvType kType>
void scores(const AttentionArgs& a, const float* const* q, const uint8_t* k, int first_block, int last_block,
            float* e) {
  for (int b = first_block; b < last_block; ++b) {
    typename V::F acc[R];
    for (int r = 0; r < R; ++r) acc[r] = V::zero();
    for (int d = 0; d < a.dim; ++d) {
      const typename V::F key = load_kv<V>(kType, k, (int64_t(b) * a.dim + d) * 16);
      for (int r = 0; r < R; ++r) acc[r] = V::fma(key, V::set1(q[r][d]), acc[r]);
    }
    for (int r = 0; r < R; ++r) V::store(e + r * kChunk + 16 * b, V::mul(acc[r], V::set1(a.scale)));
  }
}

// Turns one row's scores of a chunk into e; returns the largest score and the sum of e.
template <class V>
void softmax_chunk(float* e, Range range, float* largest, float* sum) {
  using F = typename V::F;
  const F low = V::set1(-std::numeric_limits<float>::infinity());
  const int first_block = range.first / 16, last_block = (range.last + 15) / 16;
  F top = low;
  for (int b = first_block; b < last_block; ++b) {
    const F s = V::select_lanes(range.first - 16 * b, range.last - 16 * b, V::load(e + 16 * b), low);
    V::store(e + 16 * b, s);
    top = V::max(top, s);
  }
  float lanes[16];
  V::store(lanes, top);
  float m = lanes[0];
  for (float x : lanes) m = x > m ? x : m;
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

// o of R rows over the keys [first, last), 32 columns of V at a time.
template <class V, int R, KvType kType>
void weigh(const float* e, const uint8_t* v, int dim, int first, int last, float* o) {
  for (int d = 0; d < dim; d += 32) {
    const bool two = d + 16 < dim;
    typename V::F acc[R][2];
    for (int r = 0; r < R; ++r) {
      acc[r][0] = V::load(o + r * dim + d);
      acc[r][1] = two ? V::load(o + r * dim + d + 16) : V::zero();
    }
    for (int key = first; key < last; ++key) {
      const int64_t at = int64_t(key) * dim + d;
      const typename V::F v0 = load_kv<V>(kType, v, at), v1 = two ? load_kv<V>(kType, v, at + 16) : V::zero();
      for (int r = 0; r < R; ++r) {
        const typename V::F p = V::set1(e[r * kChunk + key]);
        acc[r][0] = V::fma(p, v0, acc[r][0]);
        acc[r][1] = V::fma(p, v1, acc[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      V::store(o + r * dim + d, acc[r][0]);
      if (two) V::store(o + r * dim + d + 16, acc[r][1]);
    }
  }
}

template <class V, int R, KvType kType>
void attention_chunk(const AttentionArgs& a, AttentionWork& w, const float* const* q, const int* token,
                     int64_t chunk) {
  Range all = {kChunk, 0}, common = {0, kChunk}, range[R];
  for (int r = 0; r < R; ++r) {
    range[r] = visible(a, token[r], chunk);
    if (range[r].first >= range[r].last) range[r] = {0, 0};
    if (range[r].last > 0) {
      all.first = all.first < range[r].first ? all.first : range[r].first;
      all.last = all.last > range[r].last ? all.last : range[r].last;
    }
    common.first = common.first > range[r].first ? common.first : range[r].first;
    common.last = common.last < range[r].last ? common.last : range[r].last;
  }
  if (all.first >= all.last) return;
  if (common.first > common.last) common = {all.last, all.last};
  scores<V, R, kType>(a, q, a.kv->k(chunk), all.first / 16, (all.last + 15) / 16, w.e);
  float largest[R] = {}, sum[R] = {};
  for (int r = 0; r < R; ++r) {
    if (range[r].last > 0) softmax_chunk<V>(w.e + r * kChunk, range[r], &largest[r], &sum[r]);
  }
  const uint8_t* v = a.kv->v(chunk);
  std::memset(w.chunk_o, 0, size_t(R) * w.dim * 4);
  const auto alone = [&](int first, int last) {  // keys that not every row sees
    for (int r = 0; r < R; ++r) {
      const int from = first > range[r].first ? first : range[r].first,
                to = last < range[r].last ? last : range[r].last;
      if (from < to) weigh<V, 1, kType>(w.e + r * kChunk, v, w.dim, from, to, w.chunk_o + r * w.dim);
    }
  };
  alone(all.first, common.first);
  weigh<V, R, kType>(w.e, v, w.dim, common.first, common.last, w.chunk_o);
  alone(common.last, all.last);
  for (int r = 0; r < R; ++r) {
    if (range[r].last == 0) continue;
    float *o = w.o + r * w.dim, *c = w.chunk_o + r * w.dim;
    if (w.sum[r] == 0) {  // this row's first chunk
      w.largest[r] = largest[r], w.sum[r] = sum[r];
      std::memcpy(o, c, size_t(w.dim) * 4);
      continue;
    }
    const float m = w.largest[r] > largest[r] ? w.largest[r] : largest[r];
    float factors[16] = {w.largest[r] - m, largest[r] - m};
    V::store(factors, exp_negative<V>(V::load(factors)));
    w.largest[r] = m;
    w.sum[r] = __builtin_fmaf(sum[r], factors[1], w.sum[r] * factors[0]);
    for (int d = 0; d < w.dim; d += 16) {
      V::store(o + d,
               V::fma(V::load(c + d), V::set1(factors[1]), V::mul(V::load(o + d), V::set1(factors[0]))));
    }
  }
}

template <class V, int R, KvType kType>
void attention_rows(const AttentionArgs& a, AttentionWork& w, int first_row) {
  const float* q[R];
  int token[R];
  for (int r = 0; r < R; ++r) {
    token[r] = (first_row + r) / a.group;
    q[r] = a.q + token[r] * a.q_stride + (first_row + r) % a.group * a.dim;
    w.sum[r] = 0;
  }
  const int64_t pos = a.first_pos + token[R - 1], lowest = a.first_pos + token[0];
  const int64_t first = a.window > 0 && lowest - a.window + 1 > 0 ? lowest - a.window + 1 : 0;
  for (int64_t chunk = first / kChunk; chunk <= pos / kChunk; ++chunk)
    attention_chunk<V, R, kType>(a, w, q, token, chunk);
  for (int r = 0; r < R; ++r) {
    float* out = a.out + token[r] * a.out_stride + (first_row + r) % a.group * a.dim;
    const float inverse = 1 / w.sum[r];
    for (int d = 0; d < a.dim; ++d) out[d] = w.o[r * w.dim + d] * inverse;
  }
}

template <class V, KvType kType, int R>
void attention_all(const AttentionArgs& a, AttentionWork& w, int row) {
  if constexpr (R > 0) {
    for (; a.tokens * a.group - row >= R; row += R) attention_rows<V, R, kType>(a, w, row);
    attention_all<V, kType, R - 1>(a, w, row);
  }
}

template <class V>
void attention(const AttentionArgs& a) noexcept {
  AttentionWork w{};
  w.dim = kv_dim(a.dim);
  w.e = reinterpret_cast<float*>(a.scratch);
  w.o = w.e + kAttentionRows * kChunk;
  w.chunk_o = w.o + kAttentionRows * w.dim;
  if (a.kv->type == KvType::f16) {
    attention_all<V, KvType::f16, kAttentionRows>(a, w, 0);
  } else {
    attention_all<V, KvType::f32, kAttentionRows>(a, w, 0);
  }
}

}  // namespace
}  // namespace plumb
