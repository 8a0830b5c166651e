// The output matrix where only the largest logit matters. A first pass over the high plane of its weights
// bounds every logit; then rows whose upper bound reaches the largest lower bound are computed with the
// ordinary bits, in groups of 16, and all others are minus infinity. So the largest logit, and all that equal
// it, are what they always are (docs/numerics.md).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "cpu/linear/linear.h"
#include "cpu/steps.h"

namespace plumb {
namespace {

// The norm of a rounded row of one token, rounded up.
float norm_of(const X8& x, int64_t columns) {
  double sum = 0;
  for (int64_t b = 0; b < columns / 32; ++b) {
    int64_t squares = 0;
    for (int64_t k = 32 * b; k < 32 * b + 32; ++k) {
      const int64_t q = x.low ? kPlaneBase * x.high[k] + x.low[k] : x.high[k];
      squares += q * q;
    }
    sum += double(x.scales[b]) * double(x.scales[b]) * double(squares);
  }
  return float(std::sqrt(sum) * (1 + 0x1p-20));
}

void raise(std::atomic<float>& largest, float x) {
  float seen = largest.load(std::memory_order_relaxed);
  while (x > seen && !largest.compare_exchange_weak(seen, x, std::memory_order_relaxed)) {
  }
}

}  // namespace

void Steps::note_norm(const LinearStep& s, int thread) {
  input_norms[size_t(thread)] = norm_of(rounded_input(s, true, thread), p.shape(s.x).size());
}

bool Steps::screens(size_t i) const {
  const auto* s = std::get_if<LinearStep>(&plan.steps[i].what);
  return s && batch->likeliest && plan.steps[i].wanted && batch->wanted.size() == 1 && s->parts.size() == 1 &&
         s->rounding != Rounding::refined && weights.matrix(s->parts[0].w).packing == Packing::planes;
}

void Steps::screen(size_t i, int unit, int thread) {
  const LinearStep& s = std::get<LinearStep>(plan.steps[i].what);
  const LinearStep::Part& part = s.parts[0];
  const WeightRef& w = p.weights[size_t(part.w)];
  const Unit u{i, unit, thread, scratch.data() + thread * scratch_stride, true};
  const Block block = block_of(s, part, unit, true);
  float* y = rows(part.out).f32 + block.first_group * 16;
  const MatmulArgs a = matmul_args(s, part, u, block, {y, 0});
  k.matmul(w.format, Packing::high)(a);
  const float norm = input_norms[size_t(thread)];
  float lower = -std::numeric_limits<float>::infinity();
  for (int g = 0; g < block.groups; ++g) {
    float bounds[16];
    std::memcpy(bounds, a.packed + g * a.group_bytes + packed_bounds_at(a.columns), sizeof bounds);
    for (int r = 0; r < 16 && (block.first_group + g) * 16 + r < w.rows; ++r)
      lower = std::max(lower, y[16 * g + r] - bounds[r] * norm);
  }
  raise(largest_lower, lower);
}

void Steps::matmul_likely(const LinearStep& s, const Unit& u, Block block, Rows y) {
  const LinearStep::Part& part = s.parts[0];
  const CpuWeights::Matrix& m = weights.matrix(part.w);
  const int64_t bounds_at = packed_bounds_at(int(p.weights[size_t(part.w)].columns));
  const float norm = input_norms[size_t(u.thread)];
  const float least = largest_lower.load(std::memory_order_relaxed);
  for (int g = 0; g < block.groups; ++g) {
    float bounds[16];
    std::memcpy(bounds, m.groups + (block.first_group + g) * m.group_bytes + bounds_at, sizeof bounds);
    float* logits = y.f32 + 16 * g;
    bool may_win = false;  // also where a bound is NaN
    for (int r = 0; r < 16; ++r) may_win = may_win || !(logits[r] + bounds[r] * norm < least);
    if (may_win) {
      matmul(s, part, u, {block.first_group + g, 1}, {logits, 0}, {});
    } else {
      std::fill_n(logits, 16, -std::numeric_limits<float>::infinity());
    }
  }
}

}  // namespace plumb
