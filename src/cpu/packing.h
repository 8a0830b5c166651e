// How a matrix lies in memory.
#pragma once

namespace plumb {

/// As its format says; or Q8_0 in two planes, of which the kernels of `high` read the first only
/// (cpu/linear/packed_planes.h).
enum class Packing { plain, planes, high };

}  // namespace plumb
