// Matrices in the form that the kernels read (unit.cuh): planes in which a warp's lanes read neighbouring 16
// bytes. Only bits move; no value changes.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cuda/api.h"
#include "program/program.h"

namespace plumb::cuda {

/// The stored form of a file's format, or nothing where no kernel reads it.
std::optional<MatrixFormat> matrix_format(Format format);

/// Rows that a matrix takes in memory: whole groups, or tiles.
int64_t rows_in_memory(MatrixFormat format, int64_t rows);

/// Bytes per row of each plane.
struct Planes {
  int64_t q = 0, h = 0, s = 0, d = 0;
  int64_t sum() const { return q + h + s + d; }
};
Planes planes(MatrixFormat format, int64_t columns);

/// Writes rows [first, first + rows) of w, `first` a multiple of kTileRows, into their planes, each
/// contiguous over these rows (rounded up as in memory).
void repack(const WeightRef& w, int64_t first, int64_t rows, uint8_t* q, uint8_t* h, uint8_t* s, uint8_t* d);

/// Throws Error "cuda.unsupported" naming the first weight or operation of the program that the kernels
/// cannot run.
void check_supported(const Program& program);

}  // namespace plumb::cuda
