#include "engine/cuda_hybrid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <set>

#include "base/error.h"
#include "cpu/executor.h"
#include "engine/trial.h"

namespace plumb {
namespace {

// The first node of a layer.
Value first_of(const Program& p, int layer) {
  const std::string prefix = fmt::format("blk.{}.", layer);
  for (size_t v = 0; v < p.nodes.size(); ++v) {
    if (p.nodes[v].name.rfind(prefix, 0) == 0) return Value(v);
  }
  return -1;
}

// Left to the driver, its graphs and what it allocates for launches.
constexpr int64_t kReserve = int64_t(256) << 20;

int64_t bytes_of(const Program& program, const CudaOptions& options, int layers) {
  if (layers <= 0) return 0;
  const bool all = layers >= program.n_layer;
  return cuda_bytes(all ? program : split_program(program, layers).front, options);
}

std::string mib(int64_t bytes) { return fmt::format("{:.1f} MiB", double(bytes) / (1 << 20)); }

}  // namespace

std::string Fit::text(int n_layer) const {
  return fmt::format("{} of {} layers on {}: {} of {} free; all would take {}", layers, n_layer,
                     memory.device, mib(bytes), mib(memory.free), mib(all_bytes));
}

Fit fit_layers(const Program& program, const CudaOptions& options) {
  Fit fit{.memory = cuda_memory(options)};
  fit.all_bytes = bytes_of(program, options, program.n_layer);
  const int64_t room = fit.memory.free - kReserve;
  int low = 0, high = program.n_layer + 1;  // low fits, high does not
  if (fit.all_bytes <= room) low = program.n_layer;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (bytes_of(program, options, middle) <= room ? low : high) = middle;
  }
  fit.layers = low, fit.bytes = bytes_of(program, options, low);
  return fit;
}

void check_fits(const Program& program, const CudaOptions& options, int layers) {
  const int n = layers < 0 ? program.n_layer : std::min(layers, program.n_layer);
  const CudaMemory memory = cuda_memory(options);
  const int64_t bytes = bytes_of(program, options, n);
  if (bytes <= memory.free) return;
  const Fit fit = fit_layers(program, options);
  throw Error({.code = "memory.device",
               .expected = fmt::format("{} of device memory for {} of {} layers and {} tokens", mib(bytes), n,
                                       program.n_layer, options.n_ctx),
               .found = fmt::format("{} free on {}", mib(memory.free), memory.device),
               .where = {.key = "--n-gpu-layers"},
               .remedy = fmt::format("{} layers would fit: --fit; a smaller -c needs less", fit.layers)});
}

SplitProgram split_program(const Program& program, int layers) {
  PLUMB_CHECK(layers > 0 && layers < program.n_layer);
  const Value cut = first_of(program, layers);
  std::set<Value> crossing;
  for (size_t v = size_t(std::max(cut, 0)); v < program.nodes.size(); ++v) {
    for (Value in : program.nodes[v].in) {
      if (in < cut) crossing.insert(in);
    }
  }
  if (cut < 1 || crossing != std::set<Value>{cut - 1}) {
    throw Error({.code = "cuda.unsupported",
                 .expected = fmt::format("one value from layer {} to layer {}", layers - 1, layers),
                 .found = std::to_string(crossing.size()),
                 .where = {.key = "--n-gpu-layers"}});
  }
  SplitProgram s{program, program, cut - 1, Weight(program.weights.size())};
  s.front.nodes.resize(size_t(cut));
  s.front.output = s.carried;
  const Node carried = program.nodes[size_t(s.carried)];
  s.tail.nodes.erase(s.tail.nodes.begin(), s.tail.nodes.begin() + s.carried);
  s.tail.nodes[0] = {Embed{s.rows}, {}, carried.shape, carried.name, carried.where};
  for (Node& n : s.tail.nodes) {
    for (Value& in : n.in) in = s.in_tail(in);
  }
  s.tail.output = s.in_tail(program.output);
  s.tail.weights.push_back({carried.name, 0, carried.shape.size(), Format::F32, nullptr});
  return s;
}

struct HybridSequence::State {
  struct Planned {
    Planned(const State& s, const PlanOptions& options)
        : plan(make_plan(s.split.tail, options)), executor(plan, s.weights, s.isa, s.pool) {}
    const Plan plan;
    CpuExecutor executor;
  };

  State(const Program& program, Pool& pool_, const HybridOptions& asked, const CudaModel::Progress& progress)
      : split(split_program(program, asked.layers)),
        max_tokens(asked.cuda.max_tokens),
        carried(size_t(max_tokens) * size_t(program.shape(split.carried).size())),
        pool(pool_),
        isa(asked.isa),
        options(asked.cuda),
        device(split.front, on_device(progress), asked.cuda),
        weights(split.tail, pool, {}, [&](double share) { progress(0.5 + share / 2); }),
        cache(split.tail, asked.kv),
        decode(*this, plan_options()) {}

  // Gives tail its table; returns front.
  const Program& with_table() {
    WeightRef& table = split.tail.weights[size_t(split.rows)];
    table.rows = max_tokens;
    table.data = reinterpret_cast<const uint8_t*>(carried.data());
    return split.front;
  }

  // The first layers' weights, tested.
  std::shared_ptr<const CudaModel> on_device(const CudaModel::Progress& progress) {
    const auto model =
        std::make_shared<CudaModel>(with_table(), pool, options, [&](double share) { progress(share / 2); });
    if (options.self_test) self_test(split.front, pool, isa, model, options);
    return model;
  }

  PlanOptions plan_options() const {
    return {.max_tokens = max_tokens, .fuse = options.fuse, .rounding = options.rounding};
  }

  // The first layers of all tokens on the device, unless it has them already, and their rows into the table.
  void carry(std::span<const int> tokens, int64_t first) {
    const size_t size = size_t(split.front.shape(split.carried).size());
    const bool there =
        first == ahead_first && std::equal(tokens.begin(), tokens.end(), ahead.begin(), ahead.end());
    if (!there) device.start(tokens, first);
    ahead.clear();
    const std::span<const float> rows = device.started_rows();
    for (size_t t = 0; t < tokens.size(); ++t) {
      std::memcpy(carried.data() + t * size, rows.data() + t * size_t(row_stride(int64_t(size))), size * 4);
    }
  }

  void start_ahead(std::span<const int> tokens, int64_t first) {
    if (tokens.empty()) return;
    device.start(tokens, first);
    ahead.assign(tokens.begin(), tokens.end()), ahead_first = first;
  }

  void run(CpuExecutor& executor, size_t n, int64_t first, std::span<const int> wanted) {
    std::vector<int> ids(n), positions(n);
    std::iota(ids.begin(), ids.end(), 0);
    std::iota(positions.begin(), positions.end(), int(first));
    cache.reserve(first + int64_t(n));
    const std::vector<KvCache*> caches(n, &cache);
    executor.run({ids, positions, caches, wanted});
  }

  SplitProgram split;
  int max_tokens;
  std::vector<float> carried;  // [max_tokens, size]
  Pool& pool;
  Isa isa;
  CudaOptions options;
  CudaSequence device;
  CpuWeights weights;
  KvCache cache;
  Planned decode;
  std::vector<int> ahead;  // tokens that the device has been given before they were asked for
  int64_t ahead_first = 0;
  std::unique_ptr<Planned> observing;
  Value observed = -1;
  std::vector<float> seen;
};

HybridSequence::HybridSequence(const Program& program, Pool& pool, const HybridOptions& options,
                               const CudaModel::Progress& progress)
    : state_(std::make_unique<State>(program, pool, options, progress)) {}

HybridSequence::~HybridSequence() = default;

std::span<const float> HybridSequence::decode(std::span<const int> tokens, int64_t first, bool want,
                                              std::span<const int> next) {
  State& s = *state_;
  s.carry(tokens, first);
  s.start_ahead(next, first + int64_t(tokens.size()));
  const int last = int(tokens.size()) - 1;
  s.run(s.decode.executor, tokens.size(), first, {&last, size_t(want)});
  if (!want) return {};
  return s.decode.executor.row(s.split.tail.output, 0);
}

std::span<const float> HybridSequence::observe(std::span<const int> tokens, int64_t first, Value value) {
  State& s = *state_;
  s.ahead.clear();  // whose keys and values may not stay
  if (value <= s.split.carried) return s.device.observe(tokens, first, value);
  const Value v = s.split.in_tail(value);
  if (s.observed != v) {
    PlanOptions options = s.plan_options();
    options.all_rows = true, options.observed = {v};
    s.observing = std::make_unique<State::Planned>(s, options), s.observed = v;
  }
  s.carry(tokens, first);
  s.run(s.observing->executor, tokens.size(), first, {});
  const size_t stride = size_t(row_stride(s.split.tail.shape(v).size()));
  s.seen.assign(tokens.size() * stride, 0);
  for (size_t t = 0; t < tokens.size(); ++t) {
    const std::span<const float> row = s.observing->executor.row(v, int(t));
    std::copy(row.begin(), row.end(), s.seen.begin() + int64_t(t * stride));
  }
  return s.seen;
}

}  // namespace plumb
