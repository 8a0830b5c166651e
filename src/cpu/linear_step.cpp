// The matrix step: its input is normalised and rounded first; then parts that share it, their biases, and
// what follows them (residual, gated unit).
#include <algorithm>
#include <cstring>

#include "cpu/linear/linear.h"
#include "cpu/steps.h"

namespace plumb {
namespace {

int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

Steps::LinearScratch Steps::linear_scratch(const Plan& plan, const LinearStep& s) {
  const int64_t columns = plan.program->shape(s.x).size();
  LinearScratch at{};
  at.row = lines(x8_bytes(kFewRows, columns, s.rounding));
  at.work = at.row + lines(row_stride(columns) * 4);
  at.kernel = at.work + lines(2 * work_floats(plan) * 4);
  at.end = at.kernel + matmul_scratch_bytes(columns);
  return at;
}

int64_t Steps::rounded_bytes(const Plan& plan) {
  int64_t most = 0;
  for (const Step& step : plan.steps) {
    const auto* s = std::get_if<LinearStep>(&step.what);
    const int64_t rows = step.wanted ? plan.max_wanted : plan.max_tokens;
    if (s) most = std::max(most, x8_bytes(rows, plan.program->shape(s->x).size(), s->rounding));
  }
  return most;
}

X8 Steps::rounded_input(const LinearStep& s, bool wanted, int thread) const {
  const int rows = n(wanted);
  uint8_t* memory = rows <= kFewRows ? scratch.data() + thread * scratch_stride : rounded.data();
  return X8(memory, rows, p.shape(s.x).size(), s.rounding);
}

int Steps::rows_to_prepare(size_t i) const {
  const Step& step = plan.steps[i];
  const auto* s = std::get_if<LinearStep>(&step.what);
  if (!s) return 0;
  for (const LinearStep::Part& part : s->parts) {
    if (quantised_input(p.weights[size_t(part.w)].format)) return n(step.wanted);
  }
  return 0;
}

void Steps::prepare(size_t i, int row, int thread) {
  const Step& step = plan.steps[i];
  const LinearStep& s = std::get<LinearStep>(step.what);
  float* x = nullptr;
  if (s.row) {
    RowArgs a = row_args(*s.row);
    x = reinterpret_cast<float*>(scratch.data() + thread * scratch_stride + linear_scratch(plan, s).row);
    a.out = {x, 0};
    if (prepares_alone(i) && thread > 0) a.sum = nullptr;  // one thread stores it
    k.row(a, step.wanted ? batch->wanted[size_t(row)] : row, row);
  } else {
    x = rows(s.x).f32 + row * stride(s.x);
  }
  k.quantise(x, rounded_input(s, step.wanted, thread), p.shape(s.x).size(), n(step.wanted), row, &faults[i]);
}

int Steps::groups_of(const LinearStep::Part& part) const {
  return int((p.weights[size_t(part.w)].rows + 31) / 32 * 2);
}

// Rows of a format without kernels of its own: decoded to f32 as they are needed, two groups of
// [columns][16], then multiplied as F32.
void Steps::decoded_matmul(const WeightRef& w, MatmulArgs a, int first_row) {
  float* panel = reinterpret_cast<float*>(a.scratch + 32 * int64_t(a.columns));
  float* row = reinterpret_cast<float*>(a.scratch);
  const int64_t stride = row_bytes(w.format, w.columns);
  const Matmul f32_matmul = k.matmul(Format::F32);
  for (int g = 0; g < a.groups; g += 2) {
    for (int r = 0; r < 32; ++r) {
      const int64_t at = first_row + g * 16 + r;
      if (at < w.rows) {
        decode(w.format, w.data + at * stride, w.columns, row);
      } else {
        std::memset(row, 0, size_t(w.columns) * 4);
      }
      float* lane = panel + r / 16 * 16 * int64_t(a.columns) + r % 16;
      for (int c = 0; c < a.columns; ++c) lane[c * 16] = row[c];
    }
    MatmulArgs two = a;
    two.packed = reinterpret_cast<const uint8_t*>(panel), two.group_bytes = 64 * int64_t(a.columns),
    two.groups = 2;
    two.y = a.y + 16 * g;
    if (a.residual) two.residual = a.residual + 16 * g;
    f32_matmul(two);
  }
}

void Steps::matmul(const LinearStep& s, const LinearStep::Part& part, const Unit& u, Block block, Rows y,
                   Rows residual) {
  const WeightRef& w = p.weights[size_t(part.w)];
  const CpuWeights::Matrix& m = weights.matrix(part.w);
  const int tokens = n(u.wanted), row = block.first_group * 16;
  const float* bias = weights.vector(part.bias);
  MatmulArgs a{};
  a.packed = m.groups + block.first_group * m.group_bytes, a.group_bytes = m.group_bytes;
  a.groups = block.groups, a.columns = int(w.columns), a.n = tokens;
  if (quantised_input(w.format)) {
    a.x8 = rounded_input(s, u.wanted, u.thread);
  } else {
    a.x = rows(s.x).f32, a.x_stride = stride(s.x);
  }
  a.y = y.f32, a.y_stride = y.stride;
  if (!bias) a.residual = residual.f32, a.residual_stride = residual.stride;
  a.scratch = u.scratch + linear_scratch(plan, s).kernel;
  if (const Matmul f = m.group_bytes > 0 ? k.matmul(w.format) : nullptr) {
    f(a);
  } else {
    decoded_matmul(w, a, row);
  }
  for (int t = 0; bias && t < tokens; ++t) {  // the bias, then the residual
    float* of_token = y.f32 + t * y.stride;
    k.add(of_token, bias + row, of_token, block.groups * 16);
    if (residual.f32) k.add(residual.f32 + t * residual.stride, of_token, of_token, block.groups * 16);
  }
}

void Steps::operator()(const LinearStep& s, const Unit& u) {
  const int tokens = n(u.wanted);
  int64_t index = u.index;
  size_t part = 0;
  const auto units = [&] { return units_of(s, s.parts[part], u.wanted); };
  while (s.glu < 0 && index >= units()) index -= units(), ++part;
  const int pairs = groups_of(s.parts[part]) / 2;
  const auto border = [&](int64_t i) { return int(i * pairs / units()) * 2; };
  const int first = border(index), groups = border(index + 1) - first, column = first * 16;
  const Block block{first, groups};
  if (s.glu < 0) {
    const Rows out = rows(s.sum >= 0 ? s.sum : s.parts[part].out),
               residual = s.sum >= 0 ? rows(s.residual) : Rows{};
    matmul(s, s.parts[part], u, block, {out.f32 + column, out.stride},
           {residual.f32 ? residual.f32 + column : nullptr, residual.stride});
    return;
  }
  float* gate = reinterpret_cast<float*>(u.scratch + linear_scratch(plan, s).work);
  float* up = gate + work_floats(plan);
  const int width = groups * 16;
  matmul(s, s.parts[0], u, block, {gate, width}, {});
  matmul(s, s.parts[1], u, block, {up, width}, {});
  const Rows out = rows(s.glu);
  for (int t = 0; t < tokens; ++t)
    k.glu(s.act, gate + t * width, up + t * width, out.f32 + t * out.stride + column, width);
}

}  // namespace plumb
