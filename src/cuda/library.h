// Finds and opens libplumb_cuda.so at run time, so that one program runs with and without CUDA.
#pragma once

#include <string>

#include "cuda/api.h"

namespace plumb::cuda {

/// Null where there is no usable device; then *why says what is missing, in words for the user.
const Api* find_library(std::string* why);

/// Throws Error "cuda.failed" with what was being done, when `error` is not null; "memory.device" for want of
/// memory.
void check(const char* error, const std::string& doing);

}  // namespace plumb::cuda
