#include "cpu/executor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <chrono>

#include "base/error.h"
#include "cpu/linear/linear.h"
#include "cpu/steps.h"

namespace plumb {

using Clock = std::chrono::steady_clock;

struct CpuExecutor::Bound : Steps {
  using Steps::Steps;
  std::vector<StepTime>* times = nullptr;

  // Time of step i, on thread 0, when all threads are done with it.
  void note(size_t i, Clock::time_point& last) const {
    const Clock::time_point now = Clock::now();
    const int64_t rows = int64_t(plan.steps[i].wanted ? batch->wanted.size() : batch->tokens.size());
    if (rows > 0) {
      StepTime& t = (*times)[i];
      t.seconds += std::chrono::duration<double>(now - last).count(), ++t.calls, t.rows += rows;
    }
    last = now;
  }
};

namespace {

bool finite(std::span<const float> x) {
  uint32_t most = 0;  // of the bits without sign
  for (float v : x) most = std::max(most, std::bit_cast<uint32_t>(v) & 0x7fffffffu);
  return most < 0x7f800000u;
}

bool gathers(const Plan& plan) {
  return std::any_of(plan.steps.begin(), plan.steps.end(),
                     [](const Step& s) { return std::holds_alternative<GatherStep>(s.what); });
}

[[noreturn]] void refuse(const std::string& what, const Batch& batch) {
  throw Error({.code = "numeric.nonfinite",
               .expected = "finite values",
               .found = fmt::format("infinity or NaN in {}, tokens from position {}", what,
                                    batch.positions.front())});
}

}  // namespace

CpuExecutor::CpuExecutor(const Plan& plan, const CpuWeights& weights, Isa isa, Pool& pool)
    : bound_(std::make_unique<Bound>(plan, weights, kernels(isa), pool)) {
  Bound& b = *bound_;
  b.arena = Buffer(plan.arena_bytes, Buffer::Pages::small);
  b.rounded = Buffer(Steps::rounded_bytes(plan), Buffer::Pages::small);
  b.scratch_stride = Steps::scratch_bytes(plan);
  b.scratch = Buffer(b.scratch_stride * pool.threads());
  b.frequencies.resize(plan.tables.size());
  for (const Step& s : plan.steps) {
    if (const auto* t = std::get_if<RopeTableStep>(&s.what)) {
      b.frequencies[size_t(t->table)] = rope_frequencies(t->rope, weights.vector(t->rope.factors));
    }
  }
  b.faults = std::make_unique<FaultFlag[]>(plan.steps.size());
  b.size_attention();
}

CpuExecutor::~CpuExecutor() = default;

void CpuExecutor::run(const Batch& batch) {
  Bound& b = *bound_;
  PLUMB_CHECK(int(batch.tokens.size()) <= b.plan.max_tokens && int(batch.wanted.size()) <= b.plan.max_wanted);
  if (!b.huge && int(batch.tokens.size()) >= kManyTokens) {
    b.arena = Buffer(b.arena.bytes()), b.rounded = Buffer(b.rounded.bytes());  // nothing in them is needed
    b.huge = true;
  }
  PLUMB_CHECK(batch.comm || !gathers(b.plan));
  b.batch = &batch;
  b.prepare_attention();
  b.failure = nullptr;
  b.pool.run([&](int thread) {
    Clock::time_point last = b.times ? Clock::now() : Clock::time_point();
    for (size_t i = 0; i < b.plan.steps.size(); ++i) {
      const int rows = b.rows_to_prepare(i), units = b.units(i);
      if (rows > 0 && b.prepares_alone(i)) {
        for (int row = 0; row < rows; ++row) b.prepare(i, row, thread);
      } else if (rows > 0) {
        for (int row; (row = b.pool.claim(rows)) >= 0;) b.prepare(i, row, thread);
        b.pool.barrier();
      }
      for (int unit; (unit = b.pool.claim(units)) >= 0;) b.run(i, unit, thread);
      b.pool.barrier();
      if (b.times && thread == 0) b.note(i, last);
    }
  });
  if (b.failure) std::rethrow_exception(b.failure);
  for (size_t i = 0; i < b.plan.steps.size(); ++i) {
    if (!b.faults[i].exchange(false)) continue;
    std::vector<std::string> names;
    for (Value v : b.plan.steps[i].values) names.push_back(b.plan.program->nodes[size_t(v)].name);
    refuse(fmt::format("{}", fmt::join(names, ", ")), batch);
  }
  // Products in f32 raise no flag: what they spoil shows in the logits.
  const Value output = b.plan.program->output;
  for (size_t i = 0; b.plan.places[size_t(output)] >= 0 && i < batch.wanted.size(); ++i) {
    if (!finite(row(output, int(i)))) refuse(b.plan.program->nodes[size_t(output)].name, batch);
  }
}

void CpuExecutor::time_steps(std::vector<StepTime>* times) { bound_->times = times; }

std::span<const float> CpuExecutor::row(Value v, int i) const {
  const Bound& b = *bound_;
  const int64_t at = b.plan.places[size_t(v)];
  PLUMB_CHECK(at >= 0);
  const int size = b.plan.program->shape(v).size();
  return {reinterpret_cast<const float*>(b.arena.data() + at) + i * row_stride(size), size_t(size)};
}

}  // namespace plumb
