// Keys and values of one kv head in the cache: pages of 256 positions, the attention chunk of
// docs/numerics.md.
//
// K of a page: [16 blocks of 16 keys][dim][16], so that lanes are keys; V: [256][dim rounded up to 16], lanes
// are dims. Appending a key is a strided scatter; nothing is ever transposed.
#pragma once

#include <cstdint>

namespace plumb {

constexpr int kChunk = 256;

enum class KvType { f16, f32 };

inline int64_t kv_element_bytes(KvType type) { return type == KvType::f16 ? 2 : 4; }
inline int kv_dim(int dim) { return (dim + 15) / 16 * 16; }

/// Bytes of K or V of one head in one page.
inline int64_t kv_head_bytes(KvType type, int dim) {
  return int64_t(kChunk) * kv_dim(dim) * kv_element_bytes(type);
}

struct KvHead {
  uint8_t* const* pages;  // of the sequence, by position / 256
  int64_t k_offset;       // of this layer and head in a page
  int64_t v_offset;
  KvType type;
  int dim;

  uint8_t* k(int64_t chunk) const { return pages[chunk] + k_offset; }
  uint8_t* v(int64_t chunk) const { return pages[chunk] + v_offset; }
};

}  // namespace plumb
