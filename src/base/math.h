// Elementary functions in f64 by our own code, so that no library's rounding shows in the bits.
#pragma once

namespace plumb {

/// Natural logarithm for x > 0, error below 1e-15 (1 + |ln x|).
double logarithm(double x);
/// e^x, relative error below 1e-15 (1 + |x| / 700); 0 below -745, infinity above 709, NaN for NaN.
double exponential(double x);
/// x^y for x > 0, relative error below 1e-15 (2 + |y ln x|).
double power(double x, double y);
/// Both within a few 1e-16 for |x| < 2^30.
void sine_cosine(double x, double* sine, double* cosine);

}  // namespace plumb
