#include "program/graph.h"

#include <fmt/format.h>

#include "base/error.h"

namespace plumb {
namespace {

[[noreturn]] void refuse(const char* code, const std::string& tensor, Here at, std::string expected,
                         std::string found) {
  throw Error({.code = code,
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.tensor = tensor, .line = at.text()}});
}

std::string shape_text(int64_t rows, int64_t columns) { return fmt::format("[{}, {}]", rows, columns); }

}  // namespace

Weight Graph::use(const WeightRef& ref) {
  for (size_t i = 0; i < p.weights.size(); ++i) {
    if (p.weights[i].name == ref.name) return Weight(i);  // a tied matrix is one weight
  }
  p.weights.push_back(ref);
  return Weight(p.weights.size()) - 1;
}

Weight Graph::need(const std::string& name, Here at) {
  const WeightRef ref = index_.find(name);
  if (ref.rows == 0) refuse("model.tensor_missing", name, at, "this tensor", "none in the file");
  return use(ref);
}

Weight Graph::optional(const char* w, int64_t rows, int64_t columns, Here at) {
  const WeightRef ref = index_.find(prefix_ + w + ".weight");
  if (ref.rows == 0) return -1;
  check_shape(ref, rows, columns, at);
  return use(ref);
}

void Graph::check_shape(const WeightRef& w, int64_t rows, int64_t columns, Here at) const {
  if (w.rows == rows && w.columns == columns) return;
  refuse("model.shape", w.name, at, shape_text(rows, columns), shape_text(w.rows, w.columns));
}

Value Graph::put(Op op, std::vector<Value> in, Shape shape, const char* name, Here at) {
  p.nodes.push_back({op, std::move(in), shape, prefix_ + name, at});
  return p.output = Value(p.nodes.size()) - 1;
}

Value Graph::embed(const char* w, Here at) {
  const Weight table = need(prefix_ + w + ".weight", at);
  return put(Embed{table}, {}, {1, int(p.weights[size_t(table)].columns)}, w, at);
}

Value Graph::linear(const char* w, Value x, int heads, Here at) {
  const Weight m = need(prefix_ + w + ".weight", at);
  const WeightRef ref = p.weights[size_t(m)];
  check_shape(ref, ref.rows, p.shape(x).size(), at);
  if (ref.rows % heads != 0) {
    refuse("model.shape", ref.name, at, fmt::format("rows in a multiple of {} heads", heads),
           shape_text(ref.rows, ref.columns));
  }
  Weight bias = -1;
  if (const WeightRef b = index_.find(prefix_ + w + ".bias"); b.rows > 0) {
    check_shape(b, 1, ref.rows, at);
    bias = use(b);
  }
  return put(Linear{m, bias}, {x}, {heads, int(ref.rows) / heads}, w, at);
}

Value Graph::head(Value x, Here at) {
  const bool tied = index_.find("output.weight").rows == 0;
  for (const Node& node : p.nodes) {  // whatever is chosen must have a row to be read back from
    const Embed* e = std::get_if<Embed>(&node.op);
    if (e && !tied)
      check_shape(index_.find("output.weight"), p.weights[size_t(e->table)].rows, p.shape(x).size(), at);
  }
  const Value v = linear(tied ? "token_embd" : "output", x, 1, at);
  p.nodes.back().name = "logits";
  return v;
}

Value Graph::rms_norm(const char* w, Value x, float eps, Here at) {
  const Weight m = need(prefix_ + w + ".weight", at);
  check_shape(p.weights[size_t(m)], 1, p.shape(x).dim, at);
  return put(RmsNorm{m, eps}, {x}, p.shape(x), w, at);
}

Value Graph::rope(const char* name, Value x, Rope rope, Here at) {
  if (rope.dims <= 0 || rope.dims % 2 != 0 || rope.dims > p.shape(x).dim) {
    refuse("model.shape", prefix_ + name, at,
           fmt::format("an even number of rotated elements up to {}", p.shape(x).dim),
           std::to_string(rope.dims));
  }
  return put(rope, {x}, p.shape(x), name, at);
}

Value Graph::attention(const char* name, Value q, Value k, Value v, Attention attention, Here at) {
  const Shape qs = p.shape(q), ks = p.shape(k);
  if (qs.heads % ks.heads != 0 || ks != p.shape(v) || qs.dim != ks.dim) {
    refuse("model.shape", prefix_ + name, at,
           "equal k and v, query heads in a multiple of them, equal head size",
           fmt::format("q {}x{}, k {}x{}, v {}x{}", qs.heads, qs.dim, ks.heads, ks.dim, p.shape(v).heads,
                       p.shape(v).dim));
  }
  return put(attention, {q, k, v}, {1, qs.size()}, name, at);
}

Value Graph::glu(const char* name, Value gate, Value up, Act act, Here at) {
  if (p.shape(gate) != p.shape(up)) {
    refuse("model.shape", prefix_ + name, at, fmt::format("{} columns", p.shape(gate).size()),
           std::to_string(p.shape(up).size()));
  }
  return put(Glu{act}, {gate, up}, p.shape(gate), name, at);
}

Value Graph::add(const char* name, Value a, Value b, Here at) {
  if (p.shape(a).size() != p.shape(b).size()) {
    refuse("model.shape", prefix_ + name, at, fmt::format("{} columns", p.shape(a).size()),
           std::to_string(p.shape(b).size()));
  }
  return put(Add{}, {a, b}, p.shape(a), name, at);
}

Value Graph::scale(const char* name, Value x, double factor, Here at) {
  return put(Scale{factor}, {x}, p.shape(x), name, at);
}

}  // namespace plumb
