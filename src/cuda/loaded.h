// What the sequences of one model share on a device: the open device and the weights there; and the plans
// that run on them.
#pragma once

#include <memory>
#include <set>

#include "cuda/backend.h"
#include "cuda/planned.h"

namespace plumb::cuda {

/// The API of the options, or of the library found at run time. Throws Error "usage.backend".
const Api& library(const CudaOptions& options);

/// An open device. Throws Error "usage.device" for one that is not there or too old.
struct Device {
  Device(const Api& api, int index);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device();
  const Api& api;
  Context* context = nullptr;
  DeviceInfo info = {};
};

/// What each of as many ranks as there are devices computes of a program.
std::vector<Program> programs_of_ranks(const Program& program, const CudaOptions& options);

PlanOptions plan_options(const CudaOptions& options, int tokens, int wanted, std::set<Value> observed = {});

/// Throws Error "numeric.nonfinite" for logits that are not finite.
void check_finite(std::span<const float> logits, int64_t position);

}  // namespace plumb::cuda

namespace plumb {

struct CudaModel::State {
  State(const Program& program, Pool& pool, const CudaOptions& options, const Progress& progress);
  struct Rank {
    cuda::Device& device;
    cuda::Weights weights;
  };
  const cuda::Api& api;
  std::vector<std::unique_ptr<cuda::Device>> devices;  // by rank, as what follows
  std::vector<std::unique_ptr<Rank>> ranks;
};

}  // namespace plumb
