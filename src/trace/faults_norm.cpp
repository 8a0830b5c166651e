// C: the embedding. D: norms and the residual stream.
#include <cmath>

#include "base/half.h"
#include "trace/edits.h"

namespace plumb::trace {
namespace {

const char* const kStreamNorms =
    "attn_norm ffn_norm output_norm attn_q_norm attn_k_norm post_attention_norm post_ffw_norm";

Edit norms(std::function<void(WrongNorm&)> change) {
  return on<RmsNorm>("*", [change](RmsNorm& n) { change(n.wrong); });
}
Edit formula(NormFormula f) {
  return norms([f](WrongNorm& w) { w.formula = f; });
}
Edit norm_formula_of(const char* list, NormFormula f) {
  return on<RmsNorm>(list, [f](RmsNorm& n) { n.wrong.formula = f, n.wrong.weight = NormWeight::absent; });
}

Edit weights_to(std::string list, std::function<float(float)> change) {
  return [=](Variant& v, double) { return read_changed(v, list, change); };
}

std::string set_eps(Variant& v, double eps) {
  each<RmsNorm>(v.program, "*", [&](RmsNorm& n, Node&) { n.eps = float(eps); });
  set_key(v, "attention.layer_norm_rms_epsilon", eps);
  return {};
}

std::string is_gemma(const Variant& v) {
  return v.program.arch == "gemma3" ? "" : "the norm weights hold no added 1";
}
std::string scales_embedding(const Variant& v) {
  return v.program.find("inp_scaled") >= 0 ? "" : "the model does not scale its embeddings";
}
std::string no_scale(const Variant& v) {
  return v.program.find("inp_scaled") < 0 ? "" : "the model scales its embeddings itself";
}

Edit embedding_scale(std::function<double(double right)> factor) {
  return where(scales_embedding,
               on<Scale>("inp_scaled", [factor](Scale& s) { s.factor = factor(s.factor); }));
}
// The table in the file times a number; a tied head stays right.
Edit table_times(std::function<double(const Sizes&)> factor) {
  return [=](Variant& v, double) {
    const float f = float(factor(sizes_of(v)));
    weights_of(v, "head");
    return read_changed(v, "token_embd", [f](float x) { return x * f; });
  };
}
double root(const Sizes& s) { return std::sqrt(double(s.n_embd)); }

float rounded_bf16(double x) { return bfloat16_to_float(float_to_bfloat16(float(x))); }

std::string scale_beyond_bf16(const Variant& v) {
  const double scale = root(sizes_of(v));
  return double(rounded_bf16(scale)) != scale ? "" : "bf16 holds its scale exactly";
}

Edit norm_of(std::string from, std::string to) {
  return [=](Variant& v, double) {
    return read_other(v, from, [&](const WeightRef& w) {
      return w.name.substr(0, w.name.size() - 7 - short_name(w.name).size()) + to + ".weight";
    });
  };
}

std::string norms_exchanged(Variant& v, double) {
  return read_other(v, "attn_norm ffn_norm", [](const WeightRef& w) {
    const std::string other = short_name(w.name) == "attn_norm" ? "ffn_norm" : "attn_norm";
    return w.name.substr(0, w.name.size() - 7 - short_name(w.name).size()) + other + ".weight";
  });
}
std::string norms_of_next_layer(Variant& v, double) {
  const int n = v.program.n_layer;
  return read_other(v, "attn_norm ffn_norm", [n](const WeightRef& w) {
    return "blk." + std::to_string((layer_of(w.name) + 1) % n) + w.name.substr(w.name.find('.', 4));
  });
}

// The residual addition of a branch, changed.
Edit residual(std::string sum, std::function<void(Program&, Node&, int layer)> change) {
  return [=](Variant& v, double) -> std::string {
    for (Node& node : v.program.nodes) {
      if (short_name(node.name) == sum) change(v.program, node, layer_of(node.name));
    }
    return {};
  };
}
Edit residual_from(std::string sum, std::string stream) {
  return residual(sum, [=](Program& p, Node& n, int l) { n.in[0] = node_of(p, l, stream); });
}
Edit residual_missing(std::string sum) {
  return [=](Variant& v, double) -> std::string {
    Program& p = v.program;
    for (Value at : nodes_named(p, sum))
      p.nodes[size_t(at)].op = Scale{1}, p.nodes[size_t(at)].in = {p.nodes[size_t(at)].in[1]};
    return {};
  };
}
// Adds the stream once more.
Edit residual_twice(std::string sum) {
  return [=](Variant& v, double) -> std::string {
    for (int l = 0; l < v.program.n_layer; ++l) {
      const Value at = node_of(v.program, l, sum);
      const Value stream = v.program.nodes[size_t(at)].in[0];
      const Value again = insert_behind(v.program, at, Add{});
      v.program.nodes[size_t(again)].in = {at, stream};
    }
    return {};
  };
}
Edit from_layer_input(std::string sum) {
  return residual(
      sum, [](Program& p, Node& n, int l) { n.in[0] = p.nodes[size_t(node_of(p, l, "attn_norm"))].in[0]; });
}

Edit branch_times() {
  return [](Variant& v, double factor) -> std::string {
    for (Node& n : v.program.nodes) {
      if (listed("attn_output ffn_down", short_name(n.name)) && v.program.arch != "gemma3")
        n.wrong.factor = factor;
      if (listed("post_attention_norm post_ffw_norm", short_name(n.name))) n.wrong.factor = factor;
    }
    return {};
  };
}
Edit branch_weights_times() {
  return [](Variant& v, double factor) {
    const bool normed = v.program.arch == "gemma3";
    return read_changed(v, normed ? "post_attention_norm post_ffw_norm" : "attn_output ffn_down",
                        [f = float(factor)](float x) { return x * f; });
  };
}

Edit final_norm(std::function<void(RmsNorm&)> change) { return on<RmsNorm>("output_norm", change); }
std::string final_norm_twice(Variant& v, double) {
  const Value at = v.program.find("output_norm");
  insert_behind(v.program, at, v.program.nodes[size_t(at)].op);
  return {};
}

}  // namespace

void add_norm_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_norm.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
