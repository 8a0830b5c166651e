// NumPy's .npy files, version 1.0: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace plumb {

/// Writes a little-endian float64 or float32 array of that shape, C order, atomically.
void write_npy(const std::string& path, std::span<const double> values, const std::vector<int64_t>& shape,
               bool as_float32);

}  // namespace plumb
