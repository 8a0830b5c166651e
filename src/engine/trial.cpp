#include "engine/trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <sstream>

#include "base/error.h"
#include "cpu/executor.h"
#include "engine/backend_check.h"

namespace plumb {
namespace {

// First nodes of the layers, and the end of the last one. Empty where a layer reads anything but the last
// value before it.
std::vector<Value> bounds_of(const Program& p) {
  std::vector<Value> bounds;
  for (Value v = 0; v < Value(p.nodes.size()); ++v) {
    const bool inside = p.nodes[size_t(v)].name.rfind("blk.", 0) == 0;
    const std::string prefix = fmt::format("blk.{}.", bounds.size());
    if (p.nodes[size_t(v)].name.rfind(prefix, 0) == 0) bounds.push_back(v);
    if (!inside && !bounds.empty()) {
      bounds.push_back(v);
      break;
    }
  }
  if (bounds.empty() || bounds[0] == 0) return {};
  if (p.nodes.back().name.rfind("blk.", 0) == 0) bounds.push_back(Value(p.nodes.size()));
  size_t layer = 0;
  for (Value v = bounds[0]; v < Value(p.nodes.size()); ++v) {
    while (layer + 1 < bounds.size() && v >= bounds[layer + 1]) ++layer;
    for (Value in : p.nodes[size_t(v)].in) {
      if (in < bounds[layer] - 1) return {};
    }
  }
  return bounds;
}

void replace_all(std::string& text, const std::string& what, const std::string& with) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += with.size())
    text.replace(at, what.size(), with);
}

// The lines of a layer's nodes without its number.
std::string kind_of_layer(const std::vector<std::string>& lines, const Program& p,
                          const std::vector<Value>& bounds, size_t layer) {
  std::string kind;
  for (Value v = bounds[layer]; v < bounds[layer + 1]; ++v) {
    std::string line = lines[size_t(v)];
    replace_all(line, p.nodes[size_t(bounds[layer] - 1)].name, "x");
    replace_all(line, fmt::format("blk.{}.", layer), "blk.");
    replace_all(line, fmt::format("layer={} ", layer), "");
    kind += line + "\n";
  }
  return kind;
}

std::vector<int> some_tokens(const Program& p, int n) {
  int64_t vocabulary = 1;
  for (const Node& node : p.nodes) {
    if (const auto* e = std::get_if<Embed>(&node.op)) vocabulary = p.weights[size_t(e->table)].rows;
  }
  std::vector<int> ids(size_t(n), 0);
  for (int i = 0; i < n; ++i) ids[size_t(i)] = int((1 + 7919 * int64_t(i)) % vocabulary);
  return ids;
}

// How the tokens are fed: more than share a pass of several sequences, a few, one.
constexpr int kPieces[] = {40, 3, 1}, kTokens = 44;

class SelfTest {
 public:
  SelfTest(const Program& program, Pool& pool, Isa isa, std::shared_ptr<const CudaModel> model,
           const CudaOptions& options)
      : program_(one_layer_of_each_kind(program)),
        pool_(pool),
        isa_(isa),
        model_(std::move(model)),
        options_(options),
        weights_(program_, pool, {}, [](double) {}),
        ids_(some_tokens(program_, kTokens)) {
    options_.n_ctx = kTokens, options_.max_tokens = kPieces[0];
    if (options_.f32) options_.rounding = Rounding::int16;  // the CPU's closest
  }

  /// The difference after the last token of each piece; infinite where the device's values are not finite.
  std::vector<double> differences() {
    const size_t size = size_t(program_.shape(program_.output).size());
    const auto cpu = outputs(options_.rounding);
    CudaSequence device(program_, model_, options_);
    std::vector<double> out;
    int first = 0;
    for (int n : kPieces) {
      const auto piece = std::span(ids_).subspan(size_t(first), size_t(n));
      try {
        const std::span<const float> row =
            matrix_
                ? device.decode(piece, first, true)
                : device.rows(piece, first).subspan(size_t(n - 1) * size_t(row_stride(int64_t(size))), size);
        out.push_back(relative_difference<float>(row, output_row(*cpu, out.size())));
      } catch (const Error& e) {
        if (e.code() != "numeric.nonfinite") throw;
        out.push_back(HUGE_VAL);
      }
      first += n;
    }
    return out;
  }

  /// How far rounding to 8 bits, which is coarser than f16, moves the same rows on the CPU, at most.
  double moved_by_8_bits() const {
    const auto fine = outputs(options_.rounding), coarse = outputs(Rounding::refined);
    double most = 0;
    for (size_t i = 0; i < std::size(kPieces); ++i)
      most = std::max(most, relative_difference<float>(output_row(*coarse, i), output_row(*fine, i)));
    return most;
  }

  /// The first value that lies further apart in the first piece, and by how much; none: -1.
  std::pair<Value, double> first_apart(double most) {
    const auto tokens = std::span(ids_).first(size_t(kPieces[0]));
    for (Value v = 0; v < Value(program_.nodes.size()); ++v) {
      const auto cpu = on_cpu(v, options_.rounding);
      CudaSequence device(program_, model_, options_);
      const std::span<const float> rows = device.observe(tokens, 0, v);
      const size_t size = size_t(program_.shape(v).size()), stride = size_t(row_stride(int64_t(size)));
      for (size_t t = 0; t < tokens.size(); ++t) {
        const double d = relative_difference<float>(rows.subspan(t * stride, size), cpu->row(v, int(t)));
        if (d > most) return {v, d};
      }
    }
    return {-1, 0};
  }

  const std::string& name(Value v) const { return program_.nodes[size_t(v)].name; }

 private:
  struct OnCpu {
    OnCpu(const Program& p, const SelfTest& test, const PlanOptions& options)
        : plan(make_plan(p, options)),
          executor(plan, test.weights_, test.isa_, test.pool_),
          cache(p, test.options_.kv_f32 ? KvTypes{KvType::f32, KvType::f32} : KvTypes{}) {}
    std::span<const float> row(Value v, int i) const { return executor.row(v, i); }
    const Plan plan;
    CpuExecutor executor;
    KvCache cache;
  };

  /// All tokens with the output after each piece: only those rows of a matrix, else every row.
  std::unique_ptr<OnCpu> outputs(Rounding rounding) const {
    return on_cpu(matrix_ ? -1 : program_.output, rounding);
  }
  std::span<const float> output_row(const OnCpu& cpu, size_t piece) const {
    const int last = std::accumulate(kPieces, kPieces + piece + 1, -1);
    return cpu.row(program_.output, matrix_ ? int(piece) : last);
  }

  /// All tokens with every row of `observed`, or, with -1, the logits after each piece.
  std::unique_ptr<OnCpu> on_cpu(Value observed, Rounding rounding) const {
    PlanOptions options{.max_tokens = kTokens, .max_wanted = int(std::size(kPieces)), .rounding = rounding};
    if (observed >= 0) options.all_rows = true, options.observed = {observed};
    auto cpu = std::make_unique<OnCpu>(program_, *this, options);
    std::vector<int> positions(size_t(kTokens), 0), wanted;
    std::iota(positions.begin(), positions.end(), 0);
    for (int n : kPieces) wanted.push_back((wanted.empty() ? -1 : wanted.back()) + n);
    cpu->cache.reserve(kTokens);
    const std::vector<KvCache*> caches(size_t(kTokens), &cpu->cache);
    if (observed >= 0) wanted.clear();
    cpu->executor.run({ids_, positions, caches, wanted});
    return cpu;
  }

  const Program program_;
  const bool matrix_ = std::holds_alternative<Linear>(program_.nodes[size_t(program_.output)].op);
  Pool& pool_;
  const Isa isa_;
  const std::shared_ptr<const CudaModel> model_;
  CudaOptions options_;
  const CpuWeights weights_;
  const std::vector<int> ids_;
};

}  // namespace

Program one_layer_of_each_kind(const Program& p) {
  const std::vector<Value> bounds = bounds_of(p);
  if (bounds.size() < 3) return p;
  std::vector<std::string> lines;
  std::istringstream text(print(p));
  for (std::string line; std::getline(text, line);) lines.push_back(line);
  lines.erase(lines.begin());  // the title
  Program out = p;
  out.nodes.assign(p.nodes.begin(), p.nodes.begin() + bounds[0]);
  Value carried = bounds[0] - 1;
  const auto append = [&](Value from, Value to) {  // its input is what is carried
    const Value shift = Value(out.nodes.size()) - from;
    for (Value v = from; v < to; ++v) {
      Node& node = out.nodes.emplace_back(p.nodes[size_t(v)]);
      for (Value& in : node.in) in = in < from ? carried : in + shift;
    }
    if (p.output >= from && p.output < to) out.output = p.output + shift;
    carried = Value(out.nodes.size()) - 1;
  };
  std::set<std::string> kinds;
  for (size_t layer = 0; layer + 1 < bounds.size(); ++layer) {
    if (kinds.insert(kind_of_layer(lines, p, bounds, layer)).second) append(bounds[layer], bounds[layer + 1]);
  }
  if (p.output == bounds.back() - 1) out.output = carried;
  append(bounds.back(), Value(p.nodes.size()));
  return out;
}

void self_test(const Program& program, Pool& pool, Isa isa, std::shared_ptr<const CudaModel> model,
               const CudaOptions& options) {
  SelfTest test(program, pool, isa, std::move(model), options);
  double most = most_difference(program, options.f16 || options.f32);
  const std::vector<double> differences = test.differences();
  const auto worst = std::max_element(differences.begin(), differences.end());
  // A network may amplify roundings: scores far apart, a stream that cancels.
  if (*worst > most && options.f16) most = std::max(most, test.moved_by_8_bits());
  if (*worst <= most) return;
  auto [value, difference] = test.first_apart(most);
  if (value < 0) value = program.output, difference = *worst;
  const std::string name = value == program.output ? program.nodes[size_t(value)].name : test.name(value);
  throw Error({.code = "cuda.selftest",
               .expected = "on the device what the CPU computes",
               .found = fmt::format("{} apart by {:.2g} of its norm, {} tokens at once", name, difference,
                                    kPieces[worst - differences.begin()]),
               .remedy = "--fallback runs on the CPU instead; 'plumb check --backend cuda' looks closer"});
}

}  // namespace plumb
