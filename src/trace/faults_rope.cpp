// F: rotary positions.
#include <cmath>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

const char* const kBoth = "q_rope k_rope";

Edit rope(std::function<void(Rope&)> change, std::string list = kBoth) { return on<Rope>(list, change); }
Edit wrong(std::function<void(WrongRope&)> change, std::string list = kBoth) {
  return on<Rope>(list, [change](Rope& r) { change(r.wrong); });
}

// Elements of a head in the order of the other style: halves where pairs are wanted, and back.
int halves_to_pairs(int d, int j) { return j % 2 * (d / 2) + j / 2; }
int pairs_to_halves(int d, int j) { return j % (d / 2) * 2 + j / (d / 2); }

RopeStyle style_of(const Variant& v) {
  for (const Node& n : v.program.nodes) {
    if (const auto* r = std::get_if<Rope>(&n.op)) return r->style;
  }
  return RopeStyle::half;
}
Edit by_style(Edit pairs, Edit half) {
  return [=](Variant& v, double p) { return style_of(v) == RopeStyle::pairs ? pairs(v, p) : half(v, p); };
}

void set_base(Variant& v, double global, double local) {
  for (Node& n : v.program.nodes) {
    if (auto* r = std::get_if<Rope>(&n.op))
      r->freq_base = float(is_local(v.program, layer_of(n.name)) ? local : global);
  }
  set_key(v, "rope.freq_base", global);
  if (v.program.arch == "gemma3") set_key(v, "rope.freq_base_swa", local);
}
std::pair<double, double> bases(const Variant& v) {
  double global = 0, local = 0;
  for (const Node& n : v.program.nodes) {
    const auto* r = std::get_if<Rope>(&n.op);
    if (r) (is_local(v.program, layer_of(n.name)) ? local : global) = r->freq_base;
  }
  return {global, local};
}
std::string base(Variant& v, double b) {
  set_base(v, b, b);
  return {};
}
std::string default_base(Variant& v, double) {
  if (bases(v) == std::pair(1e4, 0.0) || bases(v) == std::pair(1e4, 1e4)) return "its base is 10000";
  return base(v, 1e4);
}
std::string base_by_width(Variant& v, double) {  // the exponent's denominator is twice as large
  const auto [global, local] = bases(v);
  set_base(v, std::sqrt(global), std::sqrt(std::max(local, 1.0)));
  return {};
}
Edit local_bases(std::function<std::pair<double, double>(double global, double local)> change) {
  return [=](Variant& v, double) -> std::string {
    const auto [global, local] = bases(v);
    if (local == 0 || global == 0 || local == global) return "its layers share one base";
    const auto [g, l] = change(global, local);
    set_base(v, g, l);
    return {};
  };
}

std::string factors_ignored(Variant& v, double) {
  bool any = false;
  each<Rope>(v.program, "*", [&](Rope& r, Node&) { any = any || r.factors >= 0, r.factors = -1; });
  return any ? "" : "the model has no rope_freqs";
}
std::string factors_of_one(Variant& v, double) {
  return read_changed(v, "rope_freqs", [](float) { return 1.0f; });
}

// A context stretched by `factor`, where attention sees everything.
std::string stretched(Variant& v, double factor) {
  for (Node& n : v.program.nodes) {
    auto* r = std::get_if<Rope>(&n.op);
    if (!r || is_local(v.program, layer_of(n.name))) continue;
    if (r->scaling == RopeScaling::yarn) return "the model stretches its context in another way";
    r->scaling = RopeScaling::linear, r->factor *= float(factor);
  }
  float all = 1;
  each<Rope>(v.program, "*",
             [&](Rope& r, Node&) { all = r.scaling == RopeScaling::linear ? r.factor : all; });
  set_key(v, "rope.scaling.factor", all);
  v.metadata.push_back(
      {v.program.arch + ".rope.scaling.type", [name = v.program.arch + ".rope.scaling.type"](GgufWriter& w) {
         w.set(name, std::string_view("linear"));
       }});
  return {};
}
std::string not_stretched(Variant& v, double) {
  bool any = false;
  each<Rope>(v.program, "*", [&](Rope& r, Node&) {
    any = any || r.scaling != RopeScaling::none;
    r.scaling = RopeScaling::none, r.factor = 1;
  });
  drop_key(v, "rope.scaling.factor"), drop_key(v, "rope.scaling.type"), drop_key(v, "rope.scale_linear");
  return any ? "" : "the model does not stretch its context";
}
std::string local_stretched(Variant& v, double) {
  float factor = 0;
  each<Rope>(v.program, "*",
             [&](Rope& r, Node&) { factor = r.scaling == RopeScaling::linear ? r.factor : factor; });
  bool any = false;
  for (Node& n : v.program.nodes) {
    auto* r = std::get_if<Rope>(&n.op);
    if (r && is_local(v.program, layer_of(n.name)))
      r->scaling = RopeScaling::linear, r->factor = factor, any = true;
  }
  return any && factor > 0 ? "" : "the model has no window layers beside stretched ones";
}
std::string magnitude(Variant& v, double factor) {
  each<Rope>(v.program, "*", [&](Rope& r, Node&) { r.attn_factor *= float(factor); });
  set_key(v, "rope.scaling.attn_factor", factor);
  return {};
}
Edit dims(std::function<int(const Sizes&)> choose) {
  return [=](Variant& v, double) -> std::string {
    const int d = choose(sizes_of(v)) / 2 * 2;
    if (d < 2 || d == sizes_of(v).rope_dims) return "as many elements turn already";
    each<Rope>(v.program, "*", [&](Rope& r, Node&) { r.dims = d; });
    set_key_integer(v, "rope.dimension_count", d);
    return {};
  };
}

// A file with factors would need as many of them.
std::string no_factors(const Variant& v) {
  for (const WeightRef& w : v.program.weights) {
    if (w.name == "rope_freqs.weight") return "the model has rope_freqs for all its pairs";
  }
  return {};
}

Edit no_rope(std::string list) {
  return [=](Variant& v, double) -> std::string {
    for (Node& n : v.program.nodes) {
      if (listed(list, short_name(n.name))) n.op = Scale{1};
    }
    return {};
  };
}
std::string rope_twice(Variant& v, double) {
  for (const char* name : {"q_rope", "k_rope"}) {
    for (int l = 0; l < v.program.n_layer; ++l) {
      const Value at = node_of(v.program, l, name);
      insert_behind(v.program, at, v.program.nodes[size_t(at)].op);
    }
  }
  return {};
}
std::string rope_of_values(Variant& v, double) {
  for (int l = 0; l < v.program.n_layer; ++l) {
    const Op rope_of_layer = v.program.nodes[size_t(node_of(v.program, l, "k_rope"))].op;
    insert_behind(v.program, node_of(v.program, l, "attn_v"), rope_of_layer);
  }
  return {};
}
std::string not_gemma(const Variant& v) {
  return v.program.arch == "gemma3" ? "its window layers are never stretched" : "";
}

int pair_exchanged(int, int j) { return j ^ 1; }
int half_exchanged(int d, int j) { return (j + d / 2) % d; }
int pairs_reversed(int d, int j) { return d - 2 - j / 2 * 2 + j % 2; }
int halves_reversed(int d, int j) { return j / (d / 2) * (d / 2) + d / 2 - 1 - j % (d / 2); }

}  // namespace

void add_rope_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_rope.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
