// Statistics and sketches of rows, as docs/trace-format.md defines them.
#pragma once

#include "trace/trace.h"

namespace plumb::trace {

enum class Level { stats, sketch, full };

/// What a record of these rows carries at the level stats, and with `sketch` its sketch. rows: [tokens,
/// heads * dim], contiguous; shape and first position are those of the record.
void measure(std::span<const double> rows, bool sketch, Record& record);

/// The sketch of rows from position `first` on.
std::array<double, kSketch> sketch_of(std::span<const double> rows, int64_t row_size, int64_t first);

}  // namespace plumb::trace
