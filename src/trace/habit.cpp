#include "trace/habit.h"

#include <cmath>

#include "base/half.h"

namespace plumb::trace {
namespace {

// ggml (ggml_vec_geglu_f32): between -10 and 10 GELU is looked up by the f16 nearest to x in a table of f16,
// which was made in f32. Where tanhf, good to 2^-23, leaves open to which of two f16 an entry was rounded:
// the one closer to `theirs`.
double gelu_from_table(double x, double theirs) {
  if (x <= -10) return 0;
  if (x >= 10) return x;
  const float n = half_to_float(float_to_half(float(x)));
  const float inner = 0.79788456080286536f * n * (1 + 0.044715f * n * n);  // sqrt(2 / pi) (n + 0.044715 n^3)
  const float entry = 0.5f * n * (1 + std::tanh(inner));
  const float unsure = 0x1p-23f * (std::abs(n) + std::abs(entry));
  const double low = half_to_float(float_to_half(entry - unsure)),
               high = half_to_float(float_to_half(entry + unsure));
  return std::abs(theirs - low) < std::abs(theirs - high) ? low : high;
}

double to_bf16(double x) { return double(bfloat16_to_float(float_to_bfloat16(float(x)))); }

// Transformers and mlx-lm multiply Gemma's embedding by sqrt(dim) rounded to bf16, whatever the arithmetic.
std::optional<Habit> rounded_scale(const Node& node, const Program& program, const Rows& rows,
                                   int64_t positions) {
  const auto& inputs = rows.full(program.nodes[size_t(node.in[0])].name);
  const double factor = to_bf16(std::get<Scale>(node.op).factor);
  Comparison c(node.name, 1);
  for (const auto& [position, at] : rows.full(node.name)) {
    const auto in = inputs.find(position);
    if (position >= positions || in == inputs.end()) continue;
    std::vector<double> y = rows.row(in->second);
    const std::vector<double> theirs = rows.row(at);
    if (theirs.size() != y.size()) return std::nullopt;
    for (double& x : y) x *= factor;
    c.add(position, theirs, y);
  }
  return Habit{"the factor sqrt(dim) rounded to bf16, as Transformers does", c.result()};
}

}  // namespace

std::optional<Habit> habit_of(const Program& program, const Rows& rows, const Replayed& replayed,
                              int64_t positions) {
  const Node& node = program.nodes[size_t(replayed.value)];
  if (std::holds_alternative<Scale>(node.op) && replayed.segment.size() == 1)
    return rounded_scale(node, program, rows, positions);
  const auto* glu = std::get_if<Glu>(&node.op);
  if (!glu || glu->act != Act::gelu_tanh || replayed.segment.size() != 1) return std::nullopt;
  const auto recorded = [&](Value v) -> const auto& { return rows.full(program.nodes[size_t(v)].name); };
  const auto &gates = recorded(node.in[0]), &ups = recorded(node.in[1]);
  Comparison c(node.name, 1);
  for (const auto& [position, at] : recorded(replayed.value)) {
    const auto gate = gates.find(position), up = ups.find(position);
    if (position >= positions || gate == gates.end() || up == ups.end()) continue;
    const std::vector<double> theirs = rows.row(at), u = rows.row(up->second);
    std::vector<double> y = rows.row(gate->second);
    if (theirs.size() != y.size() || u.size() != y.size()) return std::nullopt;
    for (size_t i = 0; i < y.size(); ++i) y[i] = gelu_from_table(y[i], theirs[i] / u[i]) * u[i];
    c.add(position, theirs, y);
  }
  return Habit{"GELU from a table of f16, as ggml does", c.result()};
}

}  // namespace plumb::trace
