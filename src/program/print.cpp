// A Program as text, for people and for golden files.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/overload.h"
#include "program/program.h"

namespace plumb {
namespace {

std::string rope_text(const Rope& r) {
  std::string s = fmt::format("{} dims={} freq_base={}", r.style == RopeStyle::half ? "half" : "pairs",
                              r.dims, r.freq_base);
  if (r.factors >= 0) s += " factors";
  if (r.scaling == RopeScaling::linear) s += fmt::format(" linear factor={}", r.factor);
  if (r.scaling == RopeScaling::yarn) {
    s += fmt::format(" yarn factor={} original_context={} attn_factor={} beta_fast={} beta_slow={}", r.factor,
                     r.original_context, r.attn_factor, r.beta_fast, r.beta_slow);
  }
  return s;
}

std::string attention_text(const Attention& a) {
  std::string s = fmt::format("layer={} scale={}", a.layer, a.scale);
  if (a.window > 0) s += fmt::format(" window={}", a.window);
  if (a.map == HeadMap::interleaved) s += " interleaved";
  return s;
}

std::string weight_text(const Program& p, Weight w) {
  const WeightRef& r = p.weights[size_t(w)];
  return fmt::format("{} {}[{}, {}]", r.name, info(r.format).name, r.rows, r.columns);
}

std::string details(const Program& p, const Node& node) {
  return std::visit(Overload{
                        [&](const Embed& e) { return weight_text(p, e.table); },
                        [&](const Linear& e) {
                          return weight_text(p, e.w) + (e.bias >= 0 ? " + " + weight_text(p, e.bias) : "");
                        },
                        [&](const RmsNorm& e) { return weight_text(p, e.w) + fmt::format(" eps={}", e.eps); },
                        [&](const Rope& e) { return rope_text(e); },
                        [&](const Attention& e) { return attention_text(e); },
                        [&](const Glu& e) { return std::string(e.act == Act::silu ? "silu" : "gelu_tanh"); },
                        [&](const Add&) { return std::string(); },
                        [&](const Scale& e) { return fmt::format("{}", e.factor); },
                        [&](const Gather& e) { return fmt::format("{}", fmt::join(e.sizes, " + ")); },
                        [&](const Slice& e) { return fmt::format("from {}", e.first); },
                    },
                    node.op);
}

}  // namespace

const char* name(const Op& op) {
  static constexpr const char* kNames[] = {"embed", "linear", "rms_norm", "rope",   "attention",
                                           "glu",   "add",    "scale",    "gather", "slice"};
  static_assert(std::size(kNames) == std::variant_size_v<Op>);
  return kNames[op.index()];
}

Value Program::find(std::string_view name) const {
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].name == name) return Value(i);
  }
  return -1;
}

std::string print(const Program& p) {
  std::string s = fmt::format("{}: {} layers, {} nodes, {} weights\n", p.arch, p.n_layer, p.nodes.size(),
                              p.weights.size());
  for (const Node& n : p.nodes) {
    std::string inputs;
    for (Value v : n.in) inputs += (inputs.empty() ? "" : ", ") + p.nodes[size_t(v)].name;
    const std::string shape = n.shape.heads > 1 ? fmt::format("[T, {}, {}]", n.shape.heads, n.shape.dim)
                                                : fmt::format("[T, {}]", n.shape.dim);
    const std::string more = details(p, n);
    s += fmt::format("{} {} = {}({}){}{}  # {}\n", n.name, shape, name(n.op), inputs, more.empty() ? "" : " ",
                     more, n.where.text());
  }
  return s;
}

}  // namespace plumb
