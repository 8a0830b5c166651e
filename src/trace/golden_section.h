// The minimum of a function that has one between two points: each step keeps 0.618 of the interval.
#pragma once

#include <cmath>
#include <functional>

namespace plumb::trace {

struct Minimum {
  double at, value;
};

inline Minimum golden_section(const std::function<double(double)>& f, double low, double high, int steps) {
  const double golden = (std::sqrt(5) - 1) / 2;
  double a = high - golden * (high - low), b = low + golden * (high - low), fa = f(a), fb = f(b);
  for (int i = 0; i < steps; ++i) {
    if (fa < fb) {
      high = b, b = a, fb = fa, a = high - golden * (high - low), fa = f(a);
    } else {
      low = a, a = b, fa = fb, b = low + golden * (high - low), fb = f(b);
    }
  }
  return fa < fb ? Minimum{a, fa} : Minimum{b, fb};
}

}  // namespace plumb::trace
