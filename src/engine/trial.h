// Before a device answers anybody: does it compute what the CPU computes? One layer of every kind that the
// model has, with the model's own weights, a few tokens in every way that tokens are run.
#pragma once

#include <memory>

#include "base/isa.h"
#include "cuda/backend.h"
#include "program/program.h"

namespace plumb {

/// The Program with the first layer of every kind (formats, shapes, windows, rotations) instead of all; the
/// same weights.
Program one_layer_of_each_kind(const Program& program);

/// Throws Error "cuda.selftest", which names the first value that differs.
void self_test(const Program& program, Pool& pool, Isa isa, std::shared_ptr<const CudaModel> model,
               const CudaOptions& options);

}  // namespace plumb
