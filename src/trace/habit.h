// How other correct engines are known to compute an operation: a difference that is theirs by design, found
// by computing the operation their way on the inputs that they recorded.
#pragma once

#include <optional>

#include "trace/replay.h"

namespace plumb::trace {

struct Habit {
  const char* what;  // for people
  Difference difference;
};

/// The operation that gave `replayed` in the other way, if one is known for it and its inputs were recorded.
std::optional<Habit> habit_of(const Program& program, const Rows& rows, const Replayed& replayed,
                              int64_t positions);

}  // namespace plumb::trace
