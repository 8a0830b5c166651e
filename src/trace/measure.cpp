#include "trace/measure.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace plumb::trace {
namespace {

Number number(double v) { return {double(float(v)), 0}; }

// sorted[k] without sorting: k rises from call to call.
double nth(std::vector<double>& x, size_t& done, double q) {
  const size_t k = size_t(std::floor(q * double(x.size() - 1) + 0.5));
  std::nth_element(x.begin() + int64_t(done), x.begin() + int64_t(k), x.end());
  done = k;
  return x[k];
}

double rms(double squares, int64_t n) { return n > 0 ? std::sqrt(squares / double(n)) : 0; }

void measure_stats(std::span<const double> rows, Stats& s) {
  std::vector<double> finite;
  finite.reserve(rows.size());
  int64_t nan = 0, argmax = 0;
  double sum = 0, squares = 0, absmax = -1;
  for (size_t i = 0; i < rows.size(); ++i) {
    const double x = rows[i];
    if (!std::isfinite(x)) {
      nan += std::isnan(x);
      continue;
    }
    finite.push_back(x);
    sum += x, squares += x * x;
    if (std::abs(x) > absmax) absmax = std::abs(x), argmax = int64_t(i);
  }
  const int64_t n = int64_t(finite.size());
  s[Stat::n] = {double(rows.size()), 0};
  s[Stat::nan] = {double(nan), 0};
  s[Stat::inf] = {double(int64_t(rows.size()) - n - nan), 0};
  if (n == 0) return;
  const auto [least, most] = std::minmax_element(finite.begin(), finite.end());
  s[Stat::sum] = number(sum), s[Stat::mean] = number(sum / double(n)), s[Stat::rms] = number(rms(squares, n));
  s[Stat::min] = number(*least), s[Stat::max] = number(*most);
  s[Stat::absmax] = number(absmax), s[Stat::argmax] = {double(argmax), 0};
  size_t done = 0;
  s[Stat::q01] = number(nth(finite, done, 0.01));
  s[Stat::q50] = number(nth(finite, done, 0.5));
  s[Stat::q99] = number(nth(finite, done, 0.99));
}

uint64_t mix(uint64_t i) {  // SplitMix64, Steele et al. 2014
  uint64_t z = i + 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

}  // namespace

std::array<double, kSketch> sketch_of(std::span<const double> rows, int64_t row_size, int64_t first) {
  std::array<double, kSketch> sums{};
  for (size_t i = 0; i < rows.size(); ++i) {
    const uint64_t x = std::bit_cast<uint64_t>(std::isfinite(rows[i]) ? rows[i] / 8 : 0);
    const int64_t row = int64_t(i) / row_size, k = int64_t(i) % row_size;
    const uint64_t z = mix(uint64_t(first + row) << 32 | uint64_t(k));
    for (int j = 0; j < kSketch; ++j) sums[size_t(j)] += std::bit_cast<double>(x ^ (z >> j) << 63);
  }
  return sums;
}

void measure(std::span<const double> rows, bool sketch, Record& r) {
  measure_stats(rows, r.stats);
  const int64_t heads = std::max<int64_t>(r.heads, 1), size = r.row_size();
  std::vector<double> per_head(static_cast<size_t>(heads));
  for (int64_t t = 0; t < r.tokens; ++t) {
    double squares = 0;
    for (int64_t k = 0; k < size; ++k) {
      const double x = rows[size_t(t * size + k)];
      if (!std::isfinite(x)) continue;
      squares += x * x, per_head[size_t(k / r.dim)] += x * x;
    }
    r.rms_per_token.push_back(number(rms(squares, size)));
  }
  for (size_t h = 0; heads > 1 && h < per_head.size(); ++h)
    r.rms_per_head.push_back(number(rms(per_head[h], r.tokens * r.dim)));
  const size_t few = std::min<size_t>(8, rows.size());
  for (double x : rows.first(few)) r.head8.push_back(number(x));
  for (double x : rows.last(few)) r.tail8.push_back(number(x));
  if (!sketch) return;
  for (double x : sketch_of(rows, size, r.first)) r.sketch.push_back(number(x));
}

}  // namespace plumb::trace
