// The end that somebody else asks for.
#pragma once

#include <atomic>

#include "base/error.h"

namespace plumb {

/// Throws Error "run.cancelled" once `cancel` (null: never) says so; `found` tells who wanted the end.
inline void stop_if(const std::atomic<bool>* cancel, const char* found = "an interrupt") {
  if (cancel && cancel->load()) throw Error({.code = "run.cancelled", .found = found});
}

}  // namespace plumb
