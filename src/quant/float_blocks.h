// The plain float formats, as blocks of one weight: F32, F16, BF16, F64. Little-endian IEEE 754; BF16 is the
// upper half of an f32. F64 is rounded to the nearest f32, overflow to infinity; the others are exact.
#pragma once

#include <bit>
#include <cstdint>

#include "base/half.h"

namespace plumb {

struct [[gnu::packed]] BlockF32 {
  static constexpr int kWeights = 1;
  uint32_t bits;
};
static_assert(sizeof(BlockF32) == 4);

struct [[gnu::packed]] BlockF16 {
  static constexpr int kWeights = 1;
  uint16_t bits;
};
static_assert(sizeof(BlockF16) == 2);

struct [[gnu::packed]] BlockBF16 {
  static constexpr int kWeights = 1;
  uint16_t bits;
};
static_assert(sizeof(BlockBF16) == 2);

struct [[gnu::packed]] BlockF64 {
  static constexpr int kWeights = 1;
  uint64_t bits;
};
static_assert(sizeof(BlockF64) == 8);

inline void decode(const BlockF32& b, float* out) { *out = std::bit_cast<float>(uint32_t(b.bits)); }
inline void decode(const BlockF16& b, float* out) { *out = half_to_float(b.bits); }
inline void decode(const BlockBF16& b, float* out) { *out = bfloat16_to_float(b.bits); }
inline void decode(const BlockF64& b, float* out) { *out = float(std::bit_cast<double>(uint64_t(b.bits))); }

}  // namespace plumb
