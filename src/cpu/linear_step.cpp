// The matrix step: parts that share an input, their biases, and what follows them (residual, gated unit,
// quantisation).
#include <algorithm>
#include <cstring>

#include "cpu/linear/linear.h"
#include "cpu/steps.h"

namespace plumb {

// Rows of a format without kernels of its own: decoded to f32 as they are needed, [columns][16], then
// multiplied as F32.
void Steps::decoded_matmul(const WeightRef& w, MatmulArgs a, int first_row) {
  float* panel = reinterpret_cast<float*>(a.scratch + 32 * int64_t(a.columns));
  float* row = reinterpret_cast<float*>(a.scratch);
  const int64_t stride = row_bytes(w.format, w.columns);
  const Matmul f32_matmul = k.matmul(Format::F32);
  for (int g = 0; g < a.groups; ++g) {
    for (int r = 0; r < 16; ++r) {
      const int64_t at = first_row + g * 16 + r;
      if (at < w.rows) {
        decode(w.format, w.data + at * stride, w.columns, row);
      } else {
        std::memset(row, 0, size_t(w.columns) * 4);
      }
      for (int c = 0; c < a.columns; ++c) panel[c * 16 + r] = row[c];
    }
    MatmulArgs one = a;
    one.packed = reinterpret_cast<const uint8_t*>(panel), one.group_bytes = 0, one.groups = 1,
    one.y = a.y + 16 * g;
    f32_matmul(one);
  }
}

void Steps::matmul(const LinearStep& s, const LinearStep::Part& part, const Unit& u, int first_group,
                   int groups, float* y, int64_t y_stride) {
  const WeightRef& w = p.weights[size_t(part.w)];
  const CpuWeights::Matrix& m = weights.matrix(part.w);
  const Rows x = rows(s.x, u.wanted);
  const int tokens = n(u.wanted);
  MatmulArgs a{};
  a.packed = m.groups + first_group * m.group_bytes, a.group_bytes = m.group_bytes, a.groups = groups;
  a.columns = int(w.columns), a.n = tokens, a.x8 = x.x8, a.x = x.f32, a.x_stride = x.stride;
  a.y = y, a.y_stride = y_stride;
  a.scratch = u.scratch + 2 * work_floats(plan) * 4;
  if (const Matmul f = m.group_bytes > 0 ? k.matmul(w.format) : nullptr) {
    f(a);
  } else {
    decoded_matmul(w, a, first_group * 16);
  }
  const float* bias = weights.vector(part.bias);
  if (!bias) return;
  for (int t = 0; t < tokens; ++t)
    k.add(y + t * y_stride, bias + first_group * 16, y + t * y_stride, groups * 16);
}

void Steps::operator()(const LinearStep& s, const Unit& u) {
  const int per_unit = unit_groups(s, u.wanted), tokens = n(u.wanted);
  int index = u.index;
  size_t part = 0;
  const auto groups_of_part = [&] { return int((p.weights[size_t(s.parts[part].w)].rows + 31) / 32 * 2); };
  while (s.glu < 0 && index >= (groups_of_part() + per_unit - 1) / per_unit) {
    index -= (groups_of_part() + per_unit - 1) / per_unit;
    ++part;
  }
  const int first = index * per_unit, groups = std::min(per_unit, groups_of_part() - first),
            column = first * 16;
  float* work = reinterpret_cast<float*>(u.scratch);
  const int width = groups * 16;
  if (s.sum < 0 && s.glu < 0) {
    const Rows out = rows(s.parts[part].out, u.wanted);
    matmul(s, s.parts[part], u, first, groups, out.f32 + column, out.stride);
    return;
  }
  matmul(s, s.parts[0], u, first, groups, work, width);
  if (s.sum >= 0) {
    const Rows out = rows(s.sum, u.wanted);
    const float* residual = f32(s.residual) + column;
    for (int t = 0; t < tokens; ++t) {
      k.add(residual + t * stride(s.residual), work + t * width, out.f32 + t * out.stride + column, width);
    }
    return;
  }
  float* up = work + work_floats(plan);
  matmul(s, s.parts[1], u, first, groups, up, width);
  const Rows out = rows(s.glu, u.wanted);
  for (int t = 0; t < tokens; ++t) {
    float* y = out.f32 ? out.f32 + t * out.stride + column : work + t * width;
    k.glu(s.act, work + t * width, up + t * width, y, width);
    if (!out.has_x8()) continue;
    const int size = p.shape(s.glu).size(), blocks = (std::min(size, column + width) - column) / 32;
    k.quantise(y, out.x8, size, tokens, t, column / 32, blocks, &faults[u.step]);
  }
}

}  // namespace plumb
