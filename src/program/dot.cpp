#include "program/dot.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "program/wrong_ops.h"

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

// Lanes are rows here. w: [n, kLanes].
template <Rounded kSums, int kTokens>
[[gnu::always_inline]] inline void in_order(bool from_end, const float* w, int rows, const float* x,
                                            int64_t n, int64_t tokens, float* y) {
  float sum[kTokens][kLanes] = {};
  for (int64_t step = 0; step < n; ++step) {
    const int64_t i = from_end ? n - 1 - step : step;
    for (int t = 0; t < kTokens; ++t) {
      for (int r = 0; r < kLanes; ++r)
        sum[t][r] = ops::rounded(kSums, sum[t][r] + w[i * kLanes + r] * x[t * n + i]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int t = 0; t < kTokens; ++t) y[r * tokens + t] = sum[t][r];
  }
}

template <Rounded kSums>
[[gnu::always_inline]] inline void lanes_in_order(bool from_end, const float* w, int rows, const float* x,
                                                  int tokens, int64_t n, float* y) {
  int t = 0;
  for (; t + kTogether <= tokens; t += kTogether)
    in_order<kSums, kTogether>(from_end, w, rows, x + t * n, n, tokens, y + t);
  for (; t < tokens; ++t) in_order<kSums, 1>(from_end, w, rows, x + t * n, n, tokens, y + t);
}

}  // namespace

PLUMB_WIDEST void dot_rows_in_order(InOrder order, const float* w, int rows, int64_t stride, const float* x,
                                    int tokens, int n, float* y) {
  std::vector<float> lanes(size_t(n) * kLanes);
  for (int first = 0; first < rows; first += kLanes) {
    const int some = std::min(kLanes, rows - first);
    for (int r = 0; r < some; ++r) {
      for (int i = 0; i < n; ++i) lanes[size_t(i * kLanes + r)] = w[(first + r) * stride + i];
    }
    float* to = y + int64_t(first) * tokens;
    switch (order.sums) {
      case Rounded::f16:
        lanes_in_order<Rounded::f16>(order.from_end, lanes.data(), some, x, tokens, n, to);
        break;
      case Rounded::bf16:
        lanes_in_order<Rounded::bf16>(order.from_end, lanes.data(), some, x, tokens, n, to);
        break;
      case Rounded::tf32:
        lanes_in_order<Rounded::tf32>(order.from_end, lanes.data(), some, x, tokens, n, to);
        break;
      default:
        lanes_in_order<Rounded::none>(order.from_end, lanes.data(), some, x, tokens, n, to);
    }
  }
}

PLUMB_WIDEST void dot_rows(const float* w, int rows, int64_t stride, const float* x, int tokens, int n,
                           float* y) {
  int r = 0;
  for (; r + kTogether <= rows; r += kTogether)
    rows_together<kTogether>(w + r * stride, stride, x, tokens, n, y + int64_t(r) * tokens);
  for (; r < rows; ++r) rows_together<1>(w + r * stride, stride, x, tokens, n, y + int64_t(r) * tokens);
}

}  // namespace plumb
