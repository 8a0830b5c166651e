#include "engine/backend_check.h"

#include <algorithm>

#include "engine/cuda_hybrid.h"

namespace plumb {
namespace {

std::vector<double> observed(Runner& runner, std::span<const int> tokens, Value value) {
  std::vector<double> all;
  runner.truncate(0);
  runner.observe(tokens, value, true, [&](int64_t, std::span<const double> row) {
    all.insert(all.end(), row.begin(), row.end());
  });
  return all;
}

}  // namespace

double most_difference(const Program& p, bool f16) {
  const bool floats = std::any_of(p.nodes.begin(), p.nodes.end(), [&](const Node& n) {
    const auto* l = std::get_if<Linear>(&n.op);
    return l && info(p.weights[size_t(l->w)].format).block == 1;
  });
  return f16 || floats ? 1e-2 : 0;
}

std::optional<Disagreement> first_disagreement(const Program& program, double most,
                                               const std::function<double(Value)>& difference) {
  Disagreement first;
  const auto differs = [&](Value v) {
    const double d = difference(v);
    if (d > most) first = {v, d};
    return d > most;
  };
  if (!differs(program.output)) return std::nullopt;
  Value agrees = -1;
  for (int layer = program.n_layer - 1; layer >= 1 && agrees < 0; --layer) {
    const Value v = split_program(program, layer).carried;
    if (!differs(v)) agrees = v;
  }
  for (Value v = first.value - 1; v > agrees; --v) differs(v);
  return first;
}

std::optional<Disagreement> first_disagreement(const Model& model, const RunnerOptions& a,
                                               const RunnerOptions& b, std::span<const int> tokens,
                                               double most) {
  std::unique_ptr<Runner> one, other;
  Value last = -1;
  return first_disagreement(model.program(), most, [&](Value v) {
    // A runner that has observed a value goes no further.
    if (!one || v > last) one = Runner::make(model, a), other = Runner::make(model, b);
    last = v;
    return relative_difference<double>(observed(*one, tokens, v), observed(*other, tokens, v));
  });
}

}  // namespace plumb
