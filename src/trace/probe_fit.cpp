#include "trace/probe_fit.h"

#include <cmath>
#include <cstddef>

#include "base/error.h"

namespace plumb::trace {
namespace {

// A = L L^T in place, A [n, n] positive definite; L in the lower triangle.
void cholesky(std::vector<double>& a, size_t n) {
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      double sum = a[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
      a[i * n + j] = i == j ? std::sqrt(sum) : sum / a[j * n + j];
    }
  }
}

// x of L L^T x = b, in place.
void solve(const std::vector<double>& l, size_t n, std::span<double> x) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) x[i] -= l[i * n + k] * x[k];
    x[i] /= l[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) x[i] -= l[k * n + i] * x[k];
    x[i] /= l[i * n + i];
  }
}

}  // namespace

bool to_unit(std::span<double> state) {
  double squares = 0;
  for (double x : state) squares += x * x;
  if (!std::isfinite(squares) || squares < 1e-200) return false;
  for (double& x : state) x /= std::sqrt(squares);
  return true;
}

std::vector<double> fit_head(std::span<const ProbeSample> samples, int classes, int width, double ridge) {
  const size_t n = size_t(width);
  PLUMB_CHECK(ridge > 0);
  std::vector<double> a(n * n), w(size_t(classes) * n);
  for (size_t i = 0; i < n; ++i) a[i * n + i] = ridge;
  for (const ProbeSample& s : samples) {
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j <= i; ++j) a[i * n + j] += s.weight * s.state[i] * s.state[j];
      w[size_t(s.target) * n + i] += s.weight * s.state[i];
    }
  }
  cholesky(a, n);
  for (size_t c = 0; c < size_t(classes); ++c) solve(a, n, std::span(w).subspan(c * n, n));
  return w;
}

}  // namespace plumb::trace
