// What runners and sequences on a CUDA device have in common: its options, and the model there.
#pragma once

#include "base/error.h"
#include "cuda/backend.h"
#include "engine/runner.h"

namespace plumb {

/// Tokens of context that the options ask for.
int64_t context_of(const Model& model, const RunnerOptions& options);

/// Whether anything runs on a device.
inline bool on_device(const RunnerOptions& options) {
  return options.backend == Backend::cuda && options.device_layers != 0;
}

CudaOptions cuda_options(const Model& model, const RunnerOptions& options);

/// Whether the options have the CPU do what the device failed to do; and those that do so, after a note.
bool may_fall_back(const RunnerOptions& options, const Error& error);
RunnerOptions on_cpu_instead(const RunnerOptions& options, const Error& error);

/// All of the model's layers on the device; what is there already serves again. Throws Error "usage.backend"
/// if the options leave layers to the CPU, "memory.device".
std::shared_ptr<const CudaModel> whole_model_on_device(const Model& model, const RunnerOptions& options);

}  // namespace plumb
