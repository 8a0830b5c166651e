#include "cpu/executor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "cpu/linear/linear.h"
#include "cpu/steps.h"

namespace plumb {

struct CpuExecutor::Bound : Steps {
  using Steps::Steps;
};

namespace {

int64_t scratch_bytes(const Plan& plan) {
  const Program& p = *plan.program;
  int64_t most = 0;
  for (const Step& s : plan.steps) {
    int64_t need = 0;
    if (const auto* l = std::get_if<LinearStep>(&s.what)) {
      need = matmul_scratch_bytes(p.shape(l->x).size()) + 2 * Steps::work_floats(plan) * 4;
    } else if (const auto* a = std::get_if<AttentionStep>(&s.what)) {
      need = attention_scratch_bytes(p.shape(a->k).dim) +
             int64_t(Steps::attention_tokens(p, *a)) * row_stride(p.shape(a->q).size()) * 4;
    } else if (const auto* r = std::get_if<RowStep>(&s.what)) {
      need = row_stride(p.shape(r->out).size()) * 4;
    } else if (const auto* h = std::get_if<HeadsStep>(&s.what)) {
      for (const HeadsStep::Part& part : h->parts)
        need = std::max(need, row_stride(p.shape(part.out).size()) * 4);
    }
    most = std::max(most, need + 256);
  }
  return (most + 4095) / 4096 * 4096;
}

bool finite(std::span<const float> x) {
  uint32_t most = 0;  // of the bits without sign
  for (float v : x) most = std::max(most, std::bit_cast<uint32_t>(v) & 0x7fffffffu);
  return most < 0x7f800000u;
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
  b.arena = Buffer(plan.arena_bytes);
  b.scratch_stride = scratch_bytes(plan);
  b.scratch = Buffer(b.scratch_stride * pool.threads());
  b.frequencies.resize(plan.tables.size());
  for (const Step& s : plan.steps) {
    if (const auto* t = std::get_if<RopeTableStep>(&s.what)) {
      b.frequencies[size_t(t->table)] = rope_frequencies(t->rope, weights.vector(t->rope.factors));
    }
  }
  b.faults = std::make_unique<FaultFlag[]>(plan.steps.size());
}

CpuExecutor::~CpuExecutor() = default;

void CpuExecutor::run(const Batch& batch) {
  Bound& b = *bound_;
  PLUMB_CHECK(int(batch.tokens.size()) <= b.plan.max_tokens && int(batch.wanted.size()) <= b.plan.max_wanted);
  b.batch = &batch;
  b.prepare_attention();
  b.pool.run([&](int thread) {
    for (size_t i = 0; i < b.plan.steps.size(); ++i) {
      const int units = b.units(i);
      for (int unit; (unit = b.pool.claim(units)) >= 0;) b.run(i, unit, thread);
      b.pool.barrier();
    }
  });
  for (size_t i = 0; i < b.plan.steps.size(); ++i) {
    if (!b.faults[i].exchange(false)) continue;
    std::vector<std::string> names;
    for (Value v : b.plan.steps[i].values) names.push_back(b.plan.program->nodes[size_t(v)].name);
    refuse(fmt::format("{}", fmt::join(names, ", ")), batch);
  }
  // Products in f32 raise no flag: what they spoil shows in the logits.
  const Value output = b.plan.program->output;
  for (size_t i = 0; b.plan.places[size_t(output)].f32 >= 0 && i < batch.wanted.size(); ++i) {
    if (!finite(row(output, int(i)))) refuse(b.plan.program->nodes[size_t(output)].name, batch);
  }
}

std::span<const float> CpuExecutor::row(Value v, int i) const {
  const Bound& b = *bound_;
  const int64_t at = b.plan.places[size_t(v)].f32;
  PLUMB_CHECK(at >= 0);
  const int size = b.plan.program->shape(v).size();
  return {reinterpret_cast<const float*>(b.arena.data() + at) + i * row_stride(size), size_t(size)};
}

}  // namespace plumb
