#include "cuda/loaded.h"

#include <fmt/format.h>

#include <bit>

#include "base/error.h"
#include "cuda/library.h"

namespace plumb::cuda {

const Api& library(const CudaOptions& options) {
  if (options.api) return *options.api;
  std::string why;
  const Api* api = find_library(&why);
  if (api) return *api;
  throw Error(
      {.code = "usage.backend", .expected = "one of the available backends: cpu", .found = "cuda: " + why});
}

Device::Device(const Api& api_, int index) : api(api_) {
  int count = 0;
  check(api.count(&count), "count CUDA devices");
  if (index < 0 || index >= count) {
    throw Error({.code = "usage.device",
                 .expected = fmt::format("a device from 0 to {}", count - 1),
                 .found = std::to_string(index),
                 .where = {.key = "--device"}});
  }
  check(api.open(index, &context, &info), fmt::format("open CUDA device {}", index));
  if (info.major * 10 + info.minor < 90) {
    api.close(context);
    throw Error({.code = "usage.device",
                 .expected = "a device of compute capability 9.0 or later",
                 .found = fmt::format("{} with {}.{}", info.name, info.major, info.minor),
                 .where = {.key = "--device"}});
  }
}

Device::~Device() { api.close(context); }

Planned::Planned(const Program& program, const PlanOptions& options, const SequenceState& state,
                 bool together)
    : plan(make_plan(program, options)), executor(plan, state, together) {}

PlanOptions plan_options(const CudaOptions& options, int tokens, int wanted, std::set<Value> observed) {
  const bool all = !observed.empty();
  return {.max_tokens = tokens,
          .max_wanted = wanted,
          .all_rows = all,
          .fuse = options.fuse,
          .rounding = options.rounding,
          .rows_apart = true,
          .observed = std::move(observed)};
}

void check_finite(std::span<const float> logits, int64_t position) {
  uint32_t bad = 0;  // whole row, without a branch per element: it is read for every token
  for (float x : logits) bad |= uint32_t((std::bit_cast<uint32_t>(x) & 0x7f800000u) == 0x7f800000u);
  if (!bad) return;
  throw Error({.code = "numeric.nonfinite",
               .expected = "finite values",
               .found = fmt::format("infinity or NaN in the logits, tokens from position {}", position)});
}

}  // namespace plumb::cuda

namespace plumb {

CudaModel::State::State(const Program& program, Pool& pool, const CudaOptions& options,
                        const Progress& progress)
    : device((cuda::check_supported(program), cuda::library(options)), options.device),
      weights(program, device.api, device.context, pool, progress) {}

CudaModel::CudaModel(const Program& program, Pool& pool, const CudaOptions& options, const Progress& progress)
    : state_(std::make_unique<State>(program, pool, options, progress)) {}

CudaModel::~CudaModel() = default;

std::string cuda_missing() {
  std::string why;
  return cuda::find_library(&why) ? "" : why;
}

CudaMemory cuda_memory(const CudaOptions& options) {
  const cuda::Device device(cuda::library(options), options.device);
  return {device.info.name, device.info.free_bytes, device.info.bytes};
}

}  // namespace plumb
