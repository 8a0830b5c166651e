#include "base/math.h"

#include <cmath>
#include <cstdint>

namespace plumb {
namespace {

constexpr double kPi = 3.141592653589793;
constexpr double kLn2 = 0.6931471805599453;

}  // namespace

double logarithm(double x) {
  // x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172; the
  // first term left out is s^25 / 25 < 1e-20.
  int e = 0;
  double m = std::frexp(x, &e);
  if (m < 0.7071067811865476) m *= 2, --e;
  const double s = (m - 1) / (m + 1), s2 = s * s;
  double sum = 0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * s2 + 1.0 / k;
  return e * kLn2 + 2 * s * sum;
}

double exponential(double x) {
  if (!(x > -745)) return x != x ? x : 0;
  if (x > 709) return HUGE_VAL;
  // x = n ln 2 + r, |r| <= 0.347; Taylor to degree 18, remainder < 1e-24. ln 2 in two parts: n times the
  // first is exact.
  const double n = std::nearbyint(x / kLn2),
               r = std::fma(n, -1.9082149292705877e-10, std::fma(n, -0.6931471803691238, x));
  double sum = 1;
  for (int k = 18; k >= 1; --k) sum = 1 + r / k * sum;
  return std::ldexp(sum, int(n));
}

double power(double x, double y) { return exponential(y * logarithm(x)); }

void sine_cosine(double x, double* sine, double* cosine) {
  // x = k pi/2 + r: pi/2 in three parts of 33 bits, of which k (30 bits) times a part loses nothing under
  // fma.
  const double k = std::nearbyint(x * (2 / kPi));
  double r = std::fma(-k, 0x1.921fb544p0, x);
  r = std::fma(-k, 0x1.0b4611a6p-34, r);
  r = std::fma(-k, 0x1.3198a2e037073p-69, r);
  const double r2 = r * r;  // |r| <= pi/4; remainders r^17 / 17! and r^18 / 18! are below 1e-16
  double s = 0, c = 0;
  for (int i = 15; i >= 3; i -= 2) s = (s + 1) * -r2 / (i * (i - 1));
  for (int i = 16; i >= 2; i -= 2) c = (c + 1) * -r2 / (i * (i - 1));
  s = r + r * s;
  c = 1 + c;
  switch (static_cast<uint64_t>(static_cast<int64_t>(k)) % 4) {
    case 0:
      *sine = s, *cosine = c;
      break;
    case 1:
      *sine = c, *cosine = -s;
      break;
    case 2:
      *sine = -s, *cosine = -c;
      break;
    default:
      *sine = -c, *cosine = s;
      break;
  }
}

}  // namespace plumb
