#include "trace/lattice.h"

#include <algorithm>
#include <cmath>

namespace plumb::trace {
namespace {

constexpr LatticeFormat kFormats[] = {
    {"Q4_0", -8, 7, 8}, {"Q5_0", -16, 15, 16}, {"Q6_K", -32, 31, 32}, {"Q8_0", -128, 127, 0}};

// How far x may lie from the number that was printed or stored: half a unit, or an f32's rounding.
double slack(const Number& n) { return n.unit + std::abs(n.value) * 0x1p-23; }

// Whether all numbers are integers times step; writes them.
bool codes_at(std::span<const Number> numbers, double step, const LatticeFormat& f, std::vector<int>& codes) {
  codes.clear();
  for (const Number& n : numbers) {
    const double code = n.value / step, whole = std::round(code);
    if (std::abs(code - whole) * std::abs(step) > 2 * slack(n) || whole < f.least || whole > f.most)
      return false;
    codes.push_back(int(whole) + f.stored);
  }
  return true;
}

}  // namespace

std::vector<Lattice> find_lattices(std::span<const Number> numbers) {
  const auto largest = std::max_element(numbers.begin(), numbers.end(), [](const Number& a, const Number& b) {
    return std::abs(a.value) < std::abs(b.value);
  });
  const auto nonzero = std::count_if(numbers.begin(), numbers.end(),
                                     [](const Number& n) { return std::isfinite(n.value) && n.value != 0; });
  std::vector<Lattice> out;
  if (nonzero < 2 ||
      !std::all_of(numbers.begin(), numbers.end(), [](const Number& n) { return std::isfinite(n.value); }))
    return out;
  for (const LatticeFormat& f : kFormats) {
    Lattice l;
    l.format = &f;
    std::vector<int> codes;
    for (int code = f.least; code <= f.most; ++code) {
      if (code == 0) continue;
      const double step = largest->value / code;
      double chance = 1;
      for (const Number& n : numbers) {
        if (&n != &*largest) chance *= std::min(1.0, 4 * slack(n) / std::abs(step));
      }
      l.chance += chance;
      if (!codes_at(numbers, step, f, codes)) continue;
      if (l.solutions++ == 0) l.step = step, l.codes = codes;
    }
    out.push_back(std::move(l));
  }
  return out;
}

Ruler ruler_of(std::span<const float> elements) {
  std::vector<double> sorted(elements.begin(), elements.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  Ruler r{0, sorted.empty() ? 0 : sorted.front()};
  if (sorted.size() < 2) return r;
  double step = INFINITY;
  for (size_t i = 1; i < sorted.size(); ++i) step = std::min(step, sorted[i] - sorted[i - 1]);
  // The smallest gap may be two steps where codes are few: halves are tried as well.
  for (int part = 1; part <= 4; ++part) {
    const double s = step / part;
    const bool fits = std::all_of(sorted.begin(), sorted.end(), [&](double x) {
      const double k = (x - r.offset) / s;
      return std::abs(k - std::round(k)) < 1e-3 * (1 + std::abs(k) * 1e-2);
    });
    if (fits) return {s, r.offset};
  }
  return {0, r.offset};
}

}  // namespace plumb::trace
