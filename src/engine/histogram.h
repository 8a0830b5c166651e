// How often a time fell between two bounds: what Prometheus calls a histogram.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace plumb {

struct Histogram {
  static constexpr std::array kBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                         0.5,   1.0,    2.5,   5.0,  10.0,  30.0, 60.0};  // seconds

  std::array<int64_t, kBounds.size() + 1> counts = {};  // up to each bound, and beyond the last
  int64_t count = 0;
  double sum = 0;

  void add(double seconds) {
    const auto at = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
    ++counts[size_t(at - kBounds.begin())], ++count, sum += seconds;
  }
};

}  // namespace plumb
