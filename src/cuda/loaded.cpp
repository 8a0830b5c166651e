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

std::vector<Program> programs_of_ranks(const Program& program, const CudaOptions& options) {
  std::vector<Program> programs;
  const int n = int(options.devices.size());
  programs.reserve(size_t(n));
  for (int r = 0; r < n; ++r) programs.push_back(rank_program(program, r, n).program);
  return programs;
}

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

namespace {

// Devices that share a model add up in the same order, and read each other's memory.
void check_together(const std::vector<std::unique_ptr<cuda::Device>>& devices) {
  const auto refuse = [](const std::string& expected, const std::string& found) {
    throw Error({.code = "usage.device", .expected = expected, .found = found, .where = {.key = "--device"}});
  };
  if (devices.size() > size_t(cuda::kMostDevices))
    refuse(fmt::format("at most {} devices", cuda::kMostDevices), fmt::format("{}", devices.size()));
  const cuda::DeviceInfo& a = devices[0]->info;
  for (const auto& device : devices) {
    const cuda::DeviceInfo& b = device->info;
    if (a.processors != b.processors || a.major != b.major || a.minor != b.minor) {
      refuse("devices of one kind, so that their sums have one order",
             fmt::format("{} with {} processors and {} with {}", a.name, a.processors, b.name, b.processors));
    }
    for (const auto& other : devices) {
      if (const char* why = device->api.reach(device->context, other->context)) {
        refuse("devices that can read each other's memory",
               fmt::format("{} cannot read {}'s: {}", b.name, other->info.name, why));
      }
    }
  }
}

}  // namespace

CudaModel::State::State(const Program& program, Pool& pool, const CudaOptions& options,
                        const Progress& progress)
    : api((cuda::check_supported(program), cuda::library(options))) {
  const std::vector<Program> programs = cuda::programs_of_ranks(program, options);
  for (int index : options.devices) devices.push_back(std::make_unique<cuda::Device>(api, index));
  check_together(devices);
  for (size_t r = 0; r < devices.size(); ++r) {
    const auto share = [&](double done) { progress((double(r) + done) / double(devices.size())); };
    ranks.emplace_back(
        new Rank{*devices[r], cuda::Weights(programs[r], api, devices[r]->context, pool, share)});
  }
}

CudaModel::CudaModel(const Program& program, Pool& pool, const CudaOptions& options, const Progress& progress)
    : state_(std::make_unique<State>(program, pool, options, progress)) {}

CudaModel::~CudaModel() = default;

std::string cuda_missing() {
  std::string why;
  return cuda::find_library(&why) ? "" : why;
}

int cuda_devices() {
  int count = 0;
  cuda::check(cuda::library({}).count(&count), "count CUDA devices");
  return count;
}

CudaMemory cuda_memory(const CudaOptions& options) {
  CudaMemory least;
  for (int index : options.devices) {
    const cuda::Device device(cuda::library(options), index);
    if (least.device.empty() || device.info.free_bytes < least.free)
      least = {device.info.name, device.info.free_bytes, device.info.bytes};
  }
  return least;
}

}  // namespace plumb
