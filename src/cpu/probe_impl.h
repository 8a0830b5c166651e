// The loops of the probe, over a vector type V: load(const uint8_t*), either(a, b) (bitwise or), bits(v),
// kBytes.
#pragma once

#include "cpu/probe.h"

namespace plumb {
namespace {

/// Reads everything as `streams` sequential streams side by side, asking for what lies `ahead` bytes further.
template <class V, int streams, int ahead>
uint64_t read_streams(const uint8_t* data, int64_t bytes) noexcept {
  constexpr int64_t kLine = 64, kStep = 8 * kLine;
  const int64_t part = bytes / streams / kStep * kStep;
  typename V::Type sum[8] = {};
  for (int64_t i = 0; i < part; i += kStep) {
    for (int s = 0; s < streams; ++s) {
      const uint8_t* p = data + s * part + i;
#pragma GCC unroll 8
      for (int line = 0; line < 8; ++line) {
        if constexpr (ahead > 0) __builtin_prefetch(p + line * kLine + ahead);
        for (int64_t at = 0; at < kLine; at += V::kBytes)
          sum[line] = V::either(sum[line], V::load(p + line * kLine + at));
      }
    }
  }
  uint64_t result = 0;
  for (const auto& s : sum) result |= V::bits(s);
  return result;
}

template <class V>
constexpr ProbeKernels::ReadPattern kReadPatterns[] = {
    {"1 stream", read_streams<V, 1, 0>},
    {"4 streams", read_streams<V, 4, 0>},
    {"8 streams", read_streams<V, 8, 0>},
    {"1 stream, prefetch 1 KB ahead", read_streams<V, 1, 1024>},
    {"1 stream, prefetch 4 KB ahead", read_streams<V, 1, 4096>},
    {"4 streams, prefetch 1 KB ahead", read_streams<V, 4, 1024>},
    {"4 streams, prefetch 4 KB ahead", read_streams<V, 4, 4096>},
    {"8 streams, prefetch 1 KB ahead", read_streams<V, 8, 1024>},
};

constexpr int kAccumulators = 12;

}  // namespace
}  // namespace plumb
