// G: scores, masks, heads.
#include <cmath>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

Edit wrong(std::function<void(WrongAttention&)> change) {
  return on<Attention>("*", [change](Attention& a) { change(a.wrong); });
}
Edit wrong_with(std::function<void(WrongAttention&, double)> change) {
  return on_with<Attention>("*", [change](Attention& a, double p) { change(a.wrong, p); });
}

// Masked scores as most frameworks have them, the least number of a type: a row of nothing else has equal
// weights.
void finite(WrongAttention& w) { w.masked = MaskedScore::number, w.mask_value = -1e30; }

using Factor = std::function<double(const Sizes&)>;  // on the right scale
Edit scaled(Factor factor) {
  return [=](Variant& v, double) -> std::string {
    const double f = factor(sizes_of(v));
    if (f == 1) return "the scale is right so";
    each<Attention>(v.program, "*", [&](Attention& a, Node&) { a.scale *= f; });
    return {};
  };
}
Edit q_times(Factor factor) {
  return [=](Variant& v, double) { return scale_q(v, factor(sizes_of(v))); };
}
Edit q_divided(Factor factor) {
  return [=](Variant& v, double) { return scale_q(v, 1 / factor(sizes_of(v))); };
}
double missing(const Sizes& s) { return std::sqrt(double(s.head_dim)); }
double by_width(const Sizes& s) { return std::sqrt(double(s.head_dim) / s.n_embd); }
double by_width_of_heads(const Sizes& s) { return std::sqrt(double(s.head_dim) * s.n_head / s.n_embd); }
double twice(const Sizes& s) { return 1 / std::sqrt(double(s.head_dim)); }
double without_root(const Sizes& s) { return std::sqrt(double(s.head_dim)) / (s.head_dim * std::sqrt(2.0)); }
std::string scale_times(Variant& v, double f) {
  each<Attention>(v.program, "*", [&](Attention& a, Node&) { a.scale *= f; });
  return {};
}

std::string grouped(const Variant& v) {
  const Sizes s = sizes_of(v);
  return s.n_head_kv > 1 && s.n_head > s.n_head_kv ? "" : "its heads are not grouped over several kv heads";
}
Edit heads(WrongHeads k, WrongHeads v) {
  return where(grouped, wrong([=](WrongAttention& w) { w.k_heads = k, w.v_heads = v; }));
}
// The query heads and the output's columns in the order `source(p)` of heads.
Edit query_heads(std::function<int64_t(const Sizes&, int64_t p)> source) {
  return where(grouped, [=](Variant& v, double) {
    const Sizes s = sizes_of(v);
    const auto move = [=](int64_t i) { return source(s, i / s.head_dim) * s.head_dim + i % s.head_dim; };
    std::string why =
        read_rows(v, "attn_q attn_q.bias", [=](const WeightRef&, int64_t r) { return move(r); });
    return why.empty() ? read_columns(v, "attn_output", [=](const WeightRef&, int64_t c) { return move(c); })
                       : why;
  });
}
int64_t one_of_each(const Sizes& s, int64_t p) {
  const int64_t group = s.n_head / s.n_head_kv;
  return p % group * s.n_head_kv + p / group;
}
int64_t one_of_each_back(const Sizes& s, int64_t p) {
  return p % s.n_head_kv * (s.n_head / s.n_head_kv) + p / s.n_head_kv;
}

std::string no_window(const Variant& v) { return has_window(v).empty() ? "the model has windows" : ""; }
Edit window(std::function<int(int)> change) {
  return where(has_window, [=](Variant& v, double) -> std::string {
    int now = 0;
    each<Attention>(v.program, "*", [&](Attention& a, Node&) {
      if (a.window > 0) now = a.window = change(a.window);
    });
    set_key_integer(v, "attention.sliding_window", now);
    return {};
  });
}
int unlimited(int) { return 1 << 29; }

// What the next layer sees and turns by.
std::string windows_of_next_layer(Variant& v, double) {
  const Program right = v.program;
  for (int l = 0; l < right.n_layer; ++l) {
    const int next = (l + 1) % right.n_layer;
    const auto op = [&](int layer, const char* name) {
      return right.nodes[size_t(node_of(right, layer, name))].op;
    };
    for (const char* name : {"q_rope", "k_rope"})
      v.program.nodes[size_t(node_of(right, l, name))].op = op(next, name);
    std::get<Attention>(v.program.nodes[size_t(node_of(right, l, "attn"))].op).window =
        std::get<Attention>(op(next, "attn")).window;
  }
  return {};
}
std::string window_everywhere(Variant& v, double) {
  int w = 0;
  each<Attention>(v.program, "*", [&](Attention& a, Node&) { w = std::max(w, a.window); });
  each<Attention>(v.program, "*", [&](Attention& a, Node&) { a.window = w; });
  return {};
}

}  // namespace

void add_attention_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_attention.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
