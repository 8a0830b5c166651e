// The probe's loops in AVX-512: vpdpbusd and vfmadd from registers, 64-byte reads.
#include <immintrin.h>

#include "cpu/probe_impl.h"

namespace plumb {
namespace {

struct Vector {
  using Type = __m512i;
  static constexpr int kBytes = 64;
  static Type load(const uint8_t* p) { return _mm512_load_si512(p); }
  static Type either(Type a, Type b) { return _mm512_or_si512(a, b); }
  static uint64_t bits(Type a) { return uint64_t(_mm512_reduce_or_epi64(a)); }
};

// Inline assembly keeps the compiler from doing the work once.
int64_t int8_macs(int64_t macs) noexcept {
  __m512i sums[kAccumulators] = {};
  const __m512i w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(1);
  constexpr int64_t kPerLoop = kAccumulators * 64;
  const int64_t loops = (macs + kPerLoop - 1) / kPerLoop;
  for (int64_t i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kAccumulators; ++j)
      asm volatile("vpdpbusd %2, %1, %0" : "+v"(sums[j]) : "v"(w), "v"(x));
  }
  return loops * kPerLoop;
}

int64_t f32_macs(int64_t macs) noexcept {
  __m512 sums[kAccumulators] = {};
  const __m512 w = _mm512_set1_ps(0.5f), x = _mm512_set1_ps(0.25f);
  constexpr int64_t kPerLoop = kAccumulators * 16;
  const int64_t loops = (macs + kPerLoop - 1) / kPerLoop;
  for (int64_t i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (int j = 0; j < kAccumulators; ++j)
      asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sums[j]) : "v"(w), "v"(x));
  }
  return loops * kPerLoop;
}

}  // namespace

const ProbeKernels& avx512_probe() {
  static constexpr ProbeKernels kKernels = {kReadPatterns<Vector>, 8, int8_macs, f32_macs};
  return kKernels;
}

}  // namespace plumb
