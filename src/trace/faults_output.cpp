// J: the last step. M: precision. N: what is no fault and must never be called one.
#include <cmath>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

Edit logits(std::function<void(WrongNode&, double)> change) { return after("logits", change); }
Edit linear(std::function<void(WrongLinear&)> change) {
  return on<Linear>("*", [change](Linear& l) { change(l.wrong); });
}
Edit arithmetic(std::function<void(Arithmetic&)> change) {
  return [=](Variant& v, double) -> std::string {
    change(v.arithmetic);
    return {};
  };
}
Edit head_times(bool inverse) {
  return [=](Variant& v, double factor) {
    return read_changed(v, "head", [f = float(inverse ? 1 / factor : factor)](float x) { return x * f; });
  };
}
Edit head_rows(int shift) {
  return [=](Variant& v, double) {
    return read_rows(v, "head",
                     [shift](const WeightRef& w, int64_t r) { return (r + shift + w.rows) % w.rows; });
  };
}

// The scale of the scores moved into q: a matter of representation.
std::string scale_in_q(Variant& v, double) {
  each<Attention>(v.program, "*", [&](Attention& a, Node& n) {
    v.program.nodes[size_t(n.in[0])].wrong.factor = a.scale;
    a.scale = 1;
  });
  return {};
}
// Norm weights as w - 1 in the file and 1 + w in the engine.
std::string folded_norms(Variant& v, double) {
  each<RmsNorm>(v.program, "*", [](RmsNorm& n, Node&) { n.wrong.weight = NormWeight::plus_one; });
  return read_changed(
      v, "attn_norm ffn_norm output_norm attn_q_norm attn_k_norm post_attention_norm post_ffw_norm",
      [](float x) { return x - 1; });
}
// q and k in the row order of the other rope style, and rotated in that style.
std::string other_row_order(Variant& v, double) {
  bool pairs = false;
  each<Rope>(v.program, "*", [&](Rope& r, Node&) {
    pairs = r.style == RopeStyle::pairs;
    r.style = pairs ? RopeStyle::half : RopeStyle::pairs;
  });
  return qk_rows([pairs](int d, int j) {
    return pairs ? j % (d / 2) * 2 + j / (d / 2) : j % 2 * (d / 2) + j / 2;
  })(v, 0);
}
// gate and up held as one matrix, and split where they meet.
std::string fused_and_split(Variant& v, double) {
  return read_rows(v, "ffn_gate ffn_up", [](const WeightRef&, int64_t r) { return r; });
}

}  // namespace

void add_output_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_output.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

void add_precision_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_precision.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
