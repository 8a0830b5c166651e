// Writing one position into the KV cache, for every instruction set V: each element is rounded once, to the
// cached type (docs/numerics.md).
#pragma once

#include <limits>

#include "base/half.h"
#include "cpu/kernels.h"
#include "cpu/simd/math.h"

namespace plumb {
namespace {

/// Elements k of x go to to[k * step].
template <class V>
void store_kv(KvType type, uint8_t* to, int64_t step, const float* x, int dim) {
  uint16_t h[16];
  int k = 0;
  for (; type == KvType::f16 && k + 16 <= dim; k += 16) {
    V::to_half(h, V::load(x + k));
    if (step == 1) {
      std::memcpy(to + k * 2, h, 32);
    } else {
      for (int i = 0; i < 16; ++i) std::memcpy(to + (k + i) * step * 2, h + i, 2);
    }
  }
  for (; k < dim; k += 16) {
    float part[16] = {};
    const int count = dim - k < 16 ? dim - k : 16;
    std::memcpy(part, x + k, size_t(count) * 4);
    if (type == KvType::f32) {
      for (int i = 0; i < count; ++i) std::memcpy(to + (k + i) * step * 4, part + i, 4);
      continue;
    }
    if (type == KvType::f16) {
      V::to_half(h, V::load(part));
    } else {
      for (int i = 0; i < 16; ++i) h[i] = float_to_bfloat16(part[i]);
    }
    for (int i = 0; i < count; ++i) std::memcpy(to + (k + i) * step * 2, h + i, 2);
  }
}

/// q8_0: s = f16(max |x| / 127), code = nearest even of RN(x RN(1 / s)) within [-127, 127]. What is not
/// finite makes s infinite or NaN, and then the values read back are NaN.
template <class V>
void store_q8(uint8_t* to, int64_t step, uint8_t* scales, int64_t scale_step, const float* x, int dim) {
  for (int k = 0; k < dim; k += kKvBlock) {
    float part[kKvBlock] = {};
    const int count = dim - k < kKvBlock ? dim - k : kKvBlock;
    std::memcpy(part, x + k, size_t(count) * 4);
    const typename V::F x0 = V::load(part), x1 = V::load(part + 16);
    const float largest = largest_of<V>(x0, x1);
    uint16_t s = 0x7e00;
    int8_t codes[kKvBlock] = {};
    if (largest <= std::numeric_limits<float>::max()) {
      s = float_to_half(largest / 127);
      const float scale = half_to_float(s);
      if (scale > 0) {
        const typename V::F r = V::set1(1 / scale), low = V::set1(-127), high = V::set1(127);
        const auto code = [&](typename V::F v) {
          const typename V::F y = V::max(V::mul(v, r), low);
          return V::to_int(V::select_less(y, high, y, high));
        };
        V::store_i8(codes, code(x0)), V::store_i8(codes + 16, code(x1));
      }
    }
    for (int i = 0; i < count; ++i) std::memcpy(to + (k + i) * step, codes + i, 1);
    std::memcpy(scales + k / kKvBlock * scale_step, &s, 2);
  }
}

template <class V>
void store_k(const KvHead& kv, int pos, const float* k) noexcept {
  const int block = pos % kChunk / 16, lane = pos % 16;
  const int64_t at = (int64_t(block) * 16 * kv.dim + lane) * kv_element_bytes(kv.k_type);
  uint8_t* to = kv.k(pos / kChunk);
  if (kv.k_type != KvType::q8_0) return store_kv<V>(kv.k_type, to + at, 16, k, kv.dim);
  const int64_t scales = kv_scales_at(kv.dim) + (int64_t(block) * kv_scales(kv.dim) * 16 + lane) * 2;
  store_q8<V>(to + at, 16, to + scales, 32, k, kv.dim);
}

template <class V>
void store_v(const KvHead& kv, int pos, const float* v) noexcept {
  const int64_t in_chunk = pos % kChunk, at = in_chunk * kv_dim(kv.dim) * kv_element_bytes(kv.v_type);
  uint8_t* to = kv.v(pos / kChunk);
  if (kv.v_type != KvType::q8_0) return store_kv<V>(kv.v_type, to + at, 1, v, kv.dim);
  store_q8<V>(to + at, 1, to + kv_scales_at(kv.dim) + in_chunk * kv_scales(kv.dim) * 2, 2, v, kv.dim);
}

}  // namespace
}  // namespace plumb
