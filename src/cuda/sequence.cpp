// One sequence of a model on one device: opens it, loads the weights, keeps a plan for one token and one for
// many.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "cuda/backend.h"
#include "cuda/executor.h"

namespace plumb {
namespace {

const cuda::Api& library(const CudaOptions& options) {
  if (options.api) return *options.api;
  std::string why;
  const cuda::Api* api = cuda::find_library(&why);
  if (api) return *api;
  throw Error(
      {.code = "usage.backend", .expected = "one of the available backends: cpu", .found = "cuda: " + why});
}

struct Device {
  Device(const cuda::Api& api_, int index) : api(api_) {
    int count = 0;
    cuda::check(api.count(&count), "count CUDA devices");
    if (index < 0 || index >= count) {
      throw Error({.code = "usage.device",
                   .expected = fmt::format("a device from 0 to {}", count - 1),
                   .found = std::to_string(index),
                   .where = {.key = "--device"}});
    }
    cuda::check(api.open(index, &context, &info), fmt::format("open CUDA device {}", index));
    if (info.major * 10 + info.minor < 90) {
      api.close(context);
      throw Error({.code = "usage.device",
                   .expected = "a device of compute capability 9.0 or later",
                   .found = fmt::format("{} with {}.{}", info.name, info.major, info.minor),
                   .where = {.key = "--device"}});
    }
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device() { api.close(context); }
  const cuda::Api& api;
  cuda::Context* context = nullptr;
  cuda::DeviceInfo info = {};
};

std::vector<cuda::SequenceState::Layer> make_cache(const Program& p, const cuda::Api& api,
                                                   cuda::Context* context, const CudaOptions& options) {
  std::vector<cuda::SequenceState::Layer> layers;
  for (const Node& n : p.nodes) {
    const auto* a = std::get_if<Attention>(&n.op);
    if (!a) continue;
    layers.resize(std::max(layers.size(), size_t(a->layer) + 1));
    const int64_t bytes = options.n_ctx * p.shape(n.in[1]).size() * (options.kv_f32 ? 4 : 2);
    auto& layer = layers[size_t(a->layer)];
    const std::string purpose = fmt::format("keys and values of {} tokens", options.n_ctx);
    layer.k = cuda::DeviceBuffer(api, context, bytes, purpose);
    layer.v = cuda::DeviceBuffer(api, context, bytes, purpose);
  }
  return layers;
}

struct Planned {
  Planned(const Program& program, const PlanOptions& options, const cuda::SequenceState& state)
      : plan(make_plan(program, options)), executor(plan, state) {}
  const Plan plan;
  cuda::Executor executor;
};

PlanOptions plan_options(const CudaOptions& options, int tokens, std::set<Value> values) {
  const bool all = !values.empty();
  return {.max_tokens = tokens,
          .all_rows = all,
          .fuse = options.fuse,
          .rounding = options.rounding,
          .rows_apart = true,
          .observed = std::move(values)};
}

// What the device takes for an allocation.
int64_t granted(int64_t bytes) {
  const int64_t unit = bytes >= (1 << 20) ? 1 << 21 : 512;
  return (bytes + unit - 1) / unit * unit;
}

// A device that only counts; its context is the count.
cuda::Api counting_api() {
  cuda::Api api{};
  api.allocate = [](cuda::Context* count, int64_t bytes, void** out) -> const char* {
    *reinterpret_cast<int64_t*>(count) += granted(bytes);
    *out = count;
    return nullptr;
  };
  api.release = [](cuda::Context*, void*) {};
  api.upload = [](cuda::Context*, void*, const void*, int64_t) -> const char* { return nullptr; };
  api.zero = [](cuda::Context*, void*, int64_t) -> const char* { return nullptr; };
  return api;
}

}  // namespace

CudaMemory cuda_memory(const CudaOptions& options) {
  const Device device(library(options), options.device);
  return {device.info.name, device.info.free_bytes, device.info.bytes};
}

int64_t cuda_bytes(const Program& program, const CudaOptions& options) {
  cuda::check_supported(program);
  int64_t bytes = 0;
  const cuda::Api api = counting_api();
  auto* context = reinterpret_cast<cuda::Context*>(&bytes);
  const cuda::Weights weights(program, api, context);
  const cuda::SequenceState sequence{api,
                                     context,
                                     weights,
                                     options.n_ctx,
                                     options.kv_f32,
                                     options.f32,
                                     options.f16,
                                     make_cache(program, api, context, options)};
  const Planned one(program, plan_options(options, 1, {}), sequence);
  const Planned many(program, plan_options(options, options.max_tokens, {}), sequence);
  return bytes;
}

std::string cuda_missing() {
  std::string why;
  return cuda::find_library(&why) ? "" : why;
}

struct CudaSequence::State {
  State(const Program& program_, Pool& pool, const CudaOptions& options_, const Progress& progress)
      : program(program_),
        options(options_),
        device((cuda::check_supported(program_), library(options_)), options_.device),
        weights(program_, device.api, device.context, pool, progress),
        sequence{device.api,      device.context,
                 weights,         options_.n_ctx,
                 options_.kv_f32, options_.f32,
                 options_.f16,    make_cache(program_, device.api, device.context, options_)} {}

  Planned& planned(std::unique_ptr<Planned>& which, int tokens, std::set<Value> values) {
    if (!which) {
      which = std::make_unique<Planned>(program, plan_options(options, tokens, std::move(values)), sequence);
    }
    return *which;
  }

  Planned& planned_for(size_t tokens) {
    return tokens == 1 ? planned(one, 1, {}) : planned(many, options.max_tokens, {});
  }

  const Program& program;
  CudaOptions options;
  Device device;
  cuda::Weights weights;
  cuda::SequenceState sequence;
  std::unique_ptr<Planned> one, many, observing;
  Value observed = -1;
};

CudaSequence::CudaSequence(const Program& program, Pool& pool, const CudaOptions& options,
                           const Progress& progress)
    : state_(std::make_unique<State>(program, pool, options, progress)) {}

CudaSequence::~CudaSequence() = default;

std::span<const float> CudaSequence::rows(std::span<const int> tokens, int64_t first) {
  auto& planned = state_->planned_for(tokens.size());
  planned.executor.run(tokens, first, true);
  return planned.executor.rows(state_->program.output, int(tokens.size()));
}

std::span<const float> CudaSequence::decode(std::span<const int> tokens, int64_t first, bool want) {
  State& s = *state_;
  auto& planned = s.planned_for(tokens.size());
  planned.executor.run(tokens, first, want);
  if (!want) return {};
  const std::span<const float> row =
      planned.executor.rows(s.program.output, 1).first(size_t(s.program.shape(s.program.output).size()));
  uint32_t bad = 0;  // whole row, without a branch per element: it is read for every token
  for (float x : row) bad |= uint32_t((std::bit_cast<uint32_t>(x) & 0x7f800000u) == 0x7f800000u);
  if (bad) {
    throw Error({.code = "numeric.nonfinite",
                 .expected = "finite values",
                 .found = fmt::format("infinity or NaN in the logits, tokens from position {}", first)});
  }
  return row;
}

std::span<const float> CudaSequence::observe(std::span<const int> tokens, int64_t first, Value value) {
  State& s = *state_;
  if (s.observed != value) s.observing.reset(), s.observed = value;
  auto& planned = s.planned(s.observing, std::max(2, s.options.max_tokens), {value});
  planned.executor.run(tokens, first, true);
  return planned.executor.rows(value, int(tokens.size()));
}

}  // namespace plumb
