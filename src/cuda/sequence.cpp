// One sequence of a model on a device: keeps a plan for one token and one for many.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "cuda/backend.h"
#include "cuda/loaded.h"

namespace plumb {
namespace {

// A sequence's pages, all there from the start, and its two plans.
struct Held {
  Held(const Program& program, const cuda::Api& api, cuda::Context* context, const cuda::Weights& weights,
       const CudaOptions& options)
      : layout(program, options.kv_f32),
        pages(api, context, cuda::pages_for(options.n_ctx) * layout.bytes,
              "keys and values of " + std::to_string(options.n_ctx) + " tokens"),
        tables(api, context, 1, options.n_ctx),
        state{api,         context,     weights, options.n_ctx, options.kv_f32,
              options.f32, options.f16, layout,  tables} {
    std::vector<uint8_t*> all(size_t(cuda::pages_for(options.n_ctx)));
    for (size_t i = 0; i < all.size(); ++i) all[i] = pages.data() + int64_t(i) * layout.bytes;
    tables.set(0, all);
  }

  cuda::PageLayout layout;
  cuda::DeviceBuffer pages;
  cuda::PageTables tables;
  cuda::SequenceState state;
};

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

int64_t cuda_bytes(const Program& program, const CudaOptions& options) {
  cuda::check_supported(program);
  int64_t bytes = 0;
  const cuda::Api api = counting_api();
  auto* context = reinterpret_cast<cuda::Context*>(&bytes);
  const cuda::Weights weights(program, api, context);
  const Held held(program, api, context, weights, options);
  const cuda::Planned one(program, cuda::plan_options(options, 1, 1), held.state, true);
  const cuda::Planned many(program, cuda::plan_options(options, options.max_tokens, 1), held.state, false);
  return bytes;
}

struct CudaSequence::State {
  State(const Program& program_, std::shared_ptr<const CudaModel> model_, const CudaOptions& options_)
      : program(program_),
        options(options_),
        model(std::move(model_)),
        held(program_, model->state().device.api, model->state().device.context, model->state().weights,
             options_) {}

  cuda::Planned& planned(size_t tokens) {
    std::unique_ptr<cuda::Planned>& which = tokens == 1 ? one : many;
    if (!which) {
      const int most = tokens == 1 ? 1 : options.max_tokens;
      which = std::make_unique<cuda::Planned>(program, cuda::plan_options(options, most, 1), held.state,
                                              tokens == 1);
    }
    return *which;
  }

  static void run(cuda::Planned& planned, std::span<const int> tokens, int64_t first, bool want) {
    std::vector<int> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), int(first));
    const int last = int(tokens.size()) - 1;
    planned.executor.run({tokens, positions, {}, {&last, size_t(want)}});
  }

  const Program& program;
  CudaOptions options;
  std::shared_ptr<const CudaModel> model;
  Held held;
  std::unique_ptr<cuda::Planned> one, many, observing;
  Value observed = -1;
};

CudaSequence::CudaSequence(const Program& program, std::shared_ptr<const CudaModel> model,
                           const CudaOptions& options)
    : state_(std::make_unique<State>(program, std::move(model), options)) {}

CudaSequence::CudaSequence(const Program& program, Pool& pool, const CudaOptions& options,
                           const CudaModel::Progress& progress)
    : CudaSequence(program, std::make_shared<CudaModel>(program, pool, options, progress), options) {}

CudaSequence::~CudaSequence() = default;

std::span<const float> CudaSequence::rows(std::span<const int> tokens, int64_t first) {
  cuda::Planned& planned = state_->planned(tokens.size());
  State::run(planned, tokens, first, true);
  return planned.executor.rows(state_->program.output, int(tokens.size()));
}

std::span<const float> CudaSequence::decode(std::span<const int> tokens, int64_t first, bool want) {
  const State& s = *state_;
  cuda::Planned& planned = state_->planned(tokens.size());
  State::run(planned, tokens, first, want);
  if (!want) return {};
  const std::span<const float> row =
      planned.executor.rows(s.program.output, 1).first(size_t(s.program.shape(s.program.output).size()));
  if (!planned.executor.finite()) cuda::check_finite(row, first);
  return row;
}

std::span<const float> CudaSequence::observe(std::span<const int> tokens, int64_t first, Value value) {
  State& s = *state_;
  if (!s.observing || s.observed != value) {
    s.observing.reset();
    s.observing = std::make_unique<cuda::Planned>(
        s.program, cuda::plan_options(s.options, std::max(2, s.options.max_tokens), 1, {value}), s.held.state,
        false);
    s.observed = value;
  }
  State::run(*s.observing, tokens, first, true);
  return s.observing->executor.rows(value, int(tokens.size()));
}

}  // namespace plumb
