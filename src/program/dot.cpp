#include "program/dot.h"

#include <cstring>

// The loader takes the widest that the processor has. Sanitizers and clang's loaders do not agree with that
// everywhere.
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define PLUMB_WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PLUMB_WIDEST
#endif

namespace plumb {
namespace {

constexpr int kLanes = 16, kTogether = 4;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

template <int kRows, int kTokens>
[[gnu::always_inline]] inline void together(const float* w, int64_t stride, const float* x, int64_t n,
                                            int64_t tokens, float* y) {
  Lanes part[kRows][kTokens] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes a[kRows], b;
    for (int r = 0; r < kRows; ++r) std::memcpy(&a[r], w + r * stride + i, sizeof b);
    for (int t = 0; t < kTokens; ++t) {
      std::memcpy(&b, x + t * n + i, sizeof b);
      for (int r = 0; r < kRows; ++r) part[r][t] += a[r] * b;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float sum[kTokens] = {};
    for (int64_t k = i; k < n; ++k) {
      for (int t = 0; t < kTokens; ++t) part[r][t][k % kLanes] += w[r * stride + k] * x[t * n + k];
    }
    for (int j = 0; j < kLanes; ++j) {
      for (int t = 0; t < kTokens; ++t) sum[t] += part[r][t][j];
    }
    std::memcpy(y + r * tokens, sum, sizeof sum);
  }
}

template <int kRows>
[[gnu::always_inline]] inline void rows_together(const float* w, int64_t stride, const float* x, int tokens,
                                                 int64_t n, float* y) {
  int t = 0;
  for (; t + kTogether <= tokens; t += kTogether)
    together<kRows, kTogether>(w, stride, x + t * n, n, tokens, y + t);
  const float* rest = x + t * n;
  if (tokens - t == 3) together<kRows, 3>(w, stride, rest, n, tokens, y + t);
  if (tokens - t == 2) together<kRows, 2>(w, stride, rest, n, tokens, y + t);
  if (tokens - t == 1) together<kRows, 1>(w, stride, rest, n, tokens, y + t);
}

}  // namespace

PLUMB_WIDEST void dot_rows(const float* w, int rows, int64_t stride, const float* x, int tokens, int n,
                           float* y) {
  int r = 0;
  for (; r + kTogether <= rows; r += kTogether)
    rows_together<kTogether>(w + r * stride, stride, x, tokens, n, y + int64_t(r) * tokens);
  for (; r < rows; ++r) rows_together<1>(w + r * stride, stride, x, tokens, n, y + int64_t(r) * tokens);
}

}  // namespace plumb
