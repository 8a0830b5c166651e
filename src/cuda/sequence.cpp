// One sequence of a model on one device or several: keeps a plan for one token and one for many.
#include <algorithm>
#include <map>
#include <numeric>

#include "base/error.h"
#include "cuda/backend.h"
#include "cuda/loaded.h"

namespace plumb {
namespace {

// A sequence's pages on one device, all there from the start.
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
using AllHeld = std::vector<std::unique_ptr<Held>>;  // by rank

std::vector<const cuda::SequenceState*> states_of(const AllHeld& held) {
  std::vector<const cuda::SequenceState*> states;
  for (const auto& h : held) states.push_back(&h->state);
  return states;
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

int64_t cuda_bytes(const Program& program, const CudaOptions& options) {
  cuda::check_supported(program);
  std::map<int, int64_t> bytes;  // by device
  const cuda::Api api = counting_api();
  const std::vector<Program> programs = cuda::programs_of_ranks(program, options);
  std::vector<std::unique_ptr<cuda::Weights>> weights;
  AllHeld held;
  for (size_t r = 0; r < programs.size(); ++r) {
    auto* context = reinterpret_cast<cuda::Context*>(&bytes[options.devices[r]]);
    weights.push_back(std::make_unique<cuda::Weights>(programs[r], api, context));
    held.push_back(std::make_unique<Held>(programs[r], api, context, *weights[r], options));
  }
  const auto states = states_of(held);
  const cuda::Planned one(program, cuda::plan_options(options, 1, 1), states, true);
  const cuda::Planned many(program, cuda::plan_options(options, options.max_tokens, 1), states, false);
  int64_t most = 0;
  for (const auto& [device, sum] : bytes) most = std::max(most, sum);
  return most;
}

struct CudaSequence::State {
  State(const Program& program_, std::shared_ptr<const CudaModel> model_, const CudaOptions& options_)
      : program(program_), options(options_), model(std::move(model_)) {
    const std::vector<Program> programs = cuda::programs_of_ranks(program, options);
    const CudaModel::State& on = model->state();
    PLUMB_CHECK(programs.size() == on.ranks.size());
    for (size_t r = 0; r < programs.size(); ++r) {
      const CudaModel::State::Rank& rank = *on.ranks[r];
      held.push_back(std::make_unique<Held>(programs[r], on.api, rank.device.context, rank.weights, options));
    }
  }

  cuda::Planned& planned(size_t tokens) {
    std::unique_ptr<cuda::Planned>& which = tokens == 1 ? one : many;
    if (!which) {
      const int most = tokens == 1 ? 1 : options.max_tokens;
      which = std::make_unique<cuda::Planned>(program, cuda::plan_options(options, most, 1), states_of(held),
                                              tokens == 1);
    }
    return *which;
  }

  static void run(cuda::Planned& planned, std::span<const int> tokens, int64_t first, bool want) {
    std::vector<int> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), int(first));
    const int last = int(tokens.size()) - 1;
    planned.run({tokens, positions, {}, {&last, size_t(want)}});
  }

  const Program& program;
  CudaOptions options;
  std::shared_ptr<const CudaModel> model;
  AllHeld held;
  std::unique_ptr<cuda::Planned> one, many, observing;
  cuda::Planned* started = nullptr;  // by start(), for so many rows
  int started_rows = 0;
  Value observed = -1;
};

CudaSequence::CudaSequence(const Program& program, std::shared_ptr<const CudaModel> model,
                           const CudaOptions& options)
    : state_(std::make_unique<State>(program, std::move(model), options)) {}

CudaSequence::CudaSequence(const Program& program, Pool& pool, const CudaOptions& options,
                           const CudaModel::Progress& progress)
    : CudaSequence(program, std::make_shared<CudaModel>(program, pool, options, progress), options) {}

CudaSequence::~CudaSequence() = default;

void CudaSequence::start(std::span<const int> tokens, int64_t first) {
  State& s = *state_;
  s.started = &s.planned(tokens.size()), s.started_rows = int(tokens.size());
  State::run(*s.started, tokens, first, true);
}

std::span<const float> CudaSequence::started_rows() {
  State& s = *state_;
  PLUMB_CHECK(s.started);
  return s.started->rows(s.program.output, s.started_rows);
}

std::span<const float> CudaSequence::decode(std::span<const int> tokens, int64_t first, bool want) {
  const State& s = *state_;
  cuda::Planned& planned = state_->planned(tokens.size());
  State::run(planned, tokens, first, want);
  if (!want) return {};
  const std::span<const float> row =
      planned.rows(s.program.output, 1).first(size_t(s.program.shape(s.program.output).size()));
  if (!planned.finite()) cuda::check_finite(row, first);
  return row;
}

std::span<const float> CudaSequence::observe(std::span<const int> tokens, int64_t first, Value value) {
  State& s = *state_;
  if (!s.observing || s.observed != value) {
    s.observing.reset();
    s.observing = std::make_unique<cuda::Planned>(
        s.program, cuda::plan_options(s.options, std::max(2, s.options.max_tokens), 1, {value}),
        states_of(s.held), false);
    s.observed = value;
  }
  State::run(*s.observing, tokens, first, true);
  return s.observing->rows(value, int(tokens.size()));
}

}  // namespace plumb
