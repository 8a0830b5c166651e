// Keys and values of one kv head in the cache: pages of 256 positions, the attention chunk of
// docs/numerics.md.
//
// K of a page: [16 blocks of 16 keys][dim][16], so that lanes are keys; V: [256][dim rounded up to 16], lanes
// are dims. Appending a key is a strided scatter; nothing is ever transposed. q8_0 keeps its codes in these
// shapes and behind them an f16 scale per 32 dims of a key: K [16 blocks][dim / 32][16], V [256][dim / 32].
#pragma once

#include <cstdint>

namespace plumb {

constexpr int kChunk = 256;
constexpr int kKvBlock = 32;  // dims that share a scale in q8_0; the last block may be shorter

enum class KvType { f16, f32, bf16, q8_0 };

/// How keys and values are kept.
struct KvTypes {
  KvType k = KvType::f16, v = KvType::f16;
  bool operator==(const KvTypes&) const = default;
};

inline int64_t kv_element_bytes(KvType type) {
  return type == KvType::f32 ? 4 : type == KvType::q8_0 ? 1 : 2;
}
inline int kv_dim(int dim) { return (dim + 15) / 16 * 16; }
inline int kv_scales(int dim) { return (dim + kKvBlock - 1) / kKvBlock; }
/// Where the scales of q8_0 begin: behind the codes.
inline int64_t kv_scales_at(int dim) { return int64_t(kChunk) * kv_dim(dim); }

/// Bytes of K or V of one head in one page.
inline int64_t kv_head_bytes(KvType type, int dim) {
  return kv_scales_at(dim) * kv_element_bytes(type) +
         (type == KvType::q8_0 ? int64_t(kChunk) * kv_scales(dim) * 2 : 0);
}

struct KvHead {
  uint8_t* const* pages;  // of the sequence, by position / 256
  int64_t k_offset;       // of this layer and head in a page
  int64_t v_offset;
  KvType k_type, v_type;
  int dim;

  uint8_t* k(int64_t chunk) const { return pages[chunk] + k_offset; }
  uint8_t* v(int64_t chunk) const { return pages[chunk] + v_offset; }
};

}  // namespace plumb
