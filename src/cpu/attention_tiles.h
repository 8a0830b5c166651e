// The register tiles of attention: scores of R rows against B blocks of 16 keys (lanes are keys), values of R
// rows over C vectors of dims (lanes are dims), and the reading of cached types into f32. What a tile holds
// never changes a sum: each lane is one fma chain in the order of docs/numerics.md.
#pragma once

#include <type_traits>

#include "base/half.h"
#include "cpu/kernels.h"

namespace plumb {
namespace {

template <class V>
constexpr int kScoreRows = V::kRegisters == 32  ? 12
                           : V::kRegisters == 8 ? 6
                                                : 2;
template <class V>
constexpr int kScoreBlocks = V::kRegisters == 32 ? 2 : 1;
template <class V>
constexpr int kValueRows = V::kRegisters >= 8 ? 6 : 2;
template <class V>
constexpr int kValueVectors = V::kRegisters == 32 ? 4 : 1;

/// Calls f with rows as a constant; 1 <= rows <= R.
template <int R, class F>
inline void with_rows(int rows, F f) {
  if constexpr (R > 1) {
    if (rows < R) return with_rows<R - 1>(rows, f);
  }
  f(std::integral_constant<int, R>{});
}

template <class V, bool kHalf>
inline typename V::F load_tile(const uint8_t* p, int64_t element) {
  if constexpr (kHalf) return V::from_half(p + element * 2);
  return V::load(reinterpret_cast<const float*>(p) + element);
}

/// e [R, kChunk] of B blocks: q [dim][R], k [B][dim][16].
template <class V, int R, int B, bool kHalf>
void score_tile(const float* q, const uint8_t* k, int dim, float scale, float* e) {
  typename V::F acc[R][B];
  for (int r = 0; r < R; ++r) {
    for (int b = 0; b < B; ++b) acc[r][b] = V::zero();
  }
  for (int d = 0; d < dim; ++d, q += R) {
    typename V::F key[B];
    for (int b = 0; b < B; ++b) key[b] = load_tile<V, kHalf>(k, (int64_t(b) * dim + d) * 16);
    for (int r = 0; r < R; ++r) {
      const typename V::F x = V::set1(q[r]);
      for (int b = 0; b < B; ++b) acc[r][b] = V::fma(key[b], x, acc[r][b]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int b = 0; b < B; ++b) V::store(e + r * kChunk + 16 * b, V::mul(acc[r][b], V::set1(scale)));
  }
}

/// o [R, o_stride] += e [R, kChunk] times v [keys, v_stride] over the keys [first, last), 16 C columns.
template <class V, int R, int C, bool kHalf>
void value_tile(const float* e, const uint8_t* v, int64_t v_stride, int first, int last, float* o,
                int64_t o_stride) {
  typename V::F acc[R][C];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) acc[r][c] = V::load(o + r * o_stride + 16 * c);
  }
  for (int key = first; key < last; ++key) {
    typename V::F value[C];
    for (int c = 0; c < C; ++c) value[c] = load_tile<V, kHalf>(v, key * v_stride + 16 * c);
    for (int r = 0; r < R; ++r) {
      const typename V::F p = V::set1(e[r * kChunk + key]);
      for (int c = 0; c < C; ++c) acc[r][c] = V::fma(p, value[c], acc[r][c]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) V::store(o + r * o_stride + 16 * c, acc[r][c]);
  }
}

template <class V>
inline typename V::F load_kv(KvType type, const uint8_t* p, int64_t element) {
  if (type == KvType::f16) return V::from_half(p + element * 2);
  if (type == KvType::bf16) return V::from_bfloat16(p + element * 2);
  if (type == KvType::q8_0) return V::to_float(V::from_i8(p + element));
  return V::load(reinterpret_cast<const float*>(p) + element);
}

/// Keys of `blocks` blocks from `block` on, as f32 [blocks][dim][16].
template <class V>
void read_keys(const KvHead& kv, const uint8_t* k, int block, int blocks, float* out) {
  const int dim = kv.dim, scales = kv_scales(dim);
  const uint8_t* scale = k + kv_scales_at(dim);  // [16][scales][16]
  for (int b = block; b < block + blocks; ++b) {
    for (int d = 0; d < dim; ++d, out += 16) {
      typename V::F x = load_kv<V>(kv.k_type, k, (int64_t(b) * dim + d) * 16);
      if (kv.k_type == KvType::q8_0)
        x = V::mul(x, V::from_half(scale + (int64_t(b) * scales + d / kKvBlock) * 32));
      V::store(out, x);
    }
  }
}

/// Columns [column, column + 16 vectors) of the values [first, last), as f32 [keys][16 vectors].
template <class V>
void read_values(const KvHead& kv, const uint8_t* v, int first, int last, int column, int vectors,
                 float* out) {
  const int scales = kv_scales(kv.dim);
  const uint8_t* scale = v + kv_scales_at(kv.dim);  // [256][scales]
  for (int key = first; key < last; ++key) {
    for (int c = 0; c < vectors; ++c, out += 16) {
      const int d = column + 16 * c;
      typename V::F x = load_kv<V>(kv.v_type, v, int64_t(key) * kv_dim(kv.dim) + d);
      if (kv.v_type == KvType::q8_0) {
        uint16_t s;
        std::memcpy(&s, scale + (int64_t(key) * scales + d / kKvBlock) * 2, 2);
        x = V::mul(x, V::set1(half_to_float(s)));
      }
      V::store(out, x);
    }
  }
}

}  // namespace
}  // namespace plumb
