// The probe's loops in AVX2: vpmaddubsw + vpmaddwd + vpaddd and vfmadd from registers, 32-byte reads.
#include <immintrin.h>

#include "cpu/probe_impl.h"

namespace plumb {
namespace {

struct Vector {
  using Type = __m256i;
  static constexpr int kBytes = 32;
  static Type load(const uint8_t* p) { return _mm256_load_si256(reinterpret_cast<const Type*>(p)); }
  static Type either(Type a, Type b) { return _mm256_or_si256(a, b); }
  static uint64_t bits(Type a) {
    const __m128i half = _mm_or_si128(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    return uint64_t(_mm_cvtsi128_si64(_mm_or_si128(half, _mm_srli_si128(half, 8))));
  }
};

// Inline assembly keeps the compiler from doing the work once.
int64_t int8_macs(int64_t macs) noexcept {
  __m256i sums[kAccumulators] = {};
  const __m256i w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
  constexpr int64_t kPerLoop = kAccumulators * 32;
  const int64_t loops = (macs + kPerLoop - 1) / kPerLoop;
  for (int64_t i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kAccumulators; ++j) {
      __m256i product;
      asm volatile("vpmaddubsw %2, %1, %0" : "=x"(product) : "x"(w), "x"(x));
      asm volatile("vpmaddwd %1, %0, %0" : "+x"(product) : "x"(ones));
      asm volatile("vpaddd %1, %0, %0" : "+x"(sums[j]) : "x"(product));
    }
  }
  return loops * kPerLoop;
}

int64_t f32_macs(int64_t macs) noexcept {
  __m256 sums[kAccumulators] = {};
  const __m256 w = _mm256_set1_ps(0.5f), x = _mm256_set1_ps(0.25f);
  constexpr int64_t kPerLoop = kAccumulators * 8;
  const int64_t loops = (macs + kPerLoop - 1) / kPerLoop;
  for (int64_t i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kAccumulators; ++j)
      asm volatile("vfmadd231ps %2, %1, %0" : "+x"(sums[j]) : "x"(w), "x"(x));
  }
  return loops * kPerLoop;
}

}  // namespace

const ProbeKernels& avx2_probe() {
  static constexpr ProbeKernels kKernels = {kReadPatterns<Vector>, 8, int8_macs, f32_macs};
  return kKernels;
}

}  // namespace plumb
