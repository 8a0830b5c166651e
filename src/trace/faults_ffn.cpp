// I: the feed-forward part.
#include "trace/edits.h"

namespace plumb::trace {
namespace {

Edit formula(GluFormula f) {
  return on<Glu>("*", [f](Glu& g) { g.wrong.formula = f; });
}
Edit activation(WrongAct a) {
  return on<Glu>("*", [a](Glu& g) { g.wrong.act = a; });
}
Edit activation_for(Act only, WrongAct a) {
  return [=](Variant& v, double) -> std::string {
    bool any = false;
    each<Glu>(v.program, "*", [&](Glu& g, Node&) {
      if (g.act == only) g.wrong.act = a, any = true;
    });
    return any ? "" : "the model has another activation";
  };
}
Edit activation_for(Act only, Act other) {
  return [=](Variant& v, double) -> std::string {
    bool any = false;
    each<Glu>(v.program, "*", [&](Glu& g, Node&) {
      if (g.act == only) g.act = other, any = true;
    });
    return any ? "" : "the model has another activation";
  };
}

std::string gate_and_up_exchanged(Variant& v, double) {
  each<Glu>(v.program, "*", [](Glu&, Node& n) { std::swap(n.in[0], n.in[1]); });
  return {};
}
std::string gate_and_up_weights(Variant& v, double) {
  return read_other(v, "ffn_gate ffn_up", [](const WeightRef& w) {
    const std::string name = short_name(w.name);
    return w.name.substr(0, w.name.size() - 7 - name.size()) + (name == "ffn_gate" ? "ffn_up" : "ffn_gate") +
           ".weight";
  });
}

std::string input_not_normed(Variant& v, double) {
  for (Node& n : v.program.nodes) {
    if (listed("ffn_gate ffn_up", short_name(n.name)))
      n.in[0] = node_of(v.program, layer_of(n.name), "attn_out");
  }
  return {};
}
std::string input_before_attention(Variant& v, double) {
  for (Node& n : v.program.nodes) {
    if (short_name(n.name) == "ffn_norm")
      n.in[0] = v.program.nodes[size_t(node_of(v.program, layer_of(n.name), "attn_norm"))].in[0];
  }
  return {};
}
std::string input_of_attention(Variant& v, double) {
  for (Node& n : v.program.nodes) {
    if (listed("ffn_gate ffn_up", short_name(n.name)))
      n.in[0] = node_of(v.program, layer_of(n.name), "attn_norm");
  }
  return {};
}

}  // namespace

void add_ffn_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_ffn.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
