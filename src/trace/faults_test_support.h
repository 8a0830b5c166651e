// What the tests of the catalogue share: tiny models, runs of variants, comparison. Tests only.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "engine/test_support.h"
#include "quant/encode.h"
#include "trace/edits.h"
#include "trace/faults.h"

namespace plumb::testing {

/// Models of all architectures, of all formats, and of what some faults need, by name.
inline const std::map<std::string, TinyOptions>& tiny_models() {
  static const std::map<std::string, TinyOptions> kModels = [] {
    std::map<std::string, TinyOptions> m;
    m["llama"] = {.arch = "llama"};
    m["qwen2"] = {.arch = "qwen2"};
    m["qwen3"] = {.arch = "qwen3", .n_vocab_out = TinyModel::kVocab};
    m["gemma3"] = {.arch = "gemma3", .reals = {{"rope.freq_base", 1e6f}}};
    m["gemma3 stretched"] = {.arch = "gemma3",
                             .reals = {{"rope.freq_base", 1e6f}, {"rope.scaling.factor", 8.0f}}};
    m["gemma3 wide"] = {.arch = "gemma3", .width = 96, .layers = 1};
    m["llama factors"] = {.arch = "llama", .rope_factors = true, .reals = {{"rope.freq_base", 2e5f}}};
    m["llama stretched"] = {.arch = "llama", .reals = {{"rope.scaling.factor", 2.0f}}};
    m["llama partly turned"] = {.arch = "llama", .rope_dims = 8};
    m["llama deep"] = {.arch = "llama", .layers = 12};
    m["llama large"] = {.arch = "llama", .norm_size = 1e5f};
    m["llama F16"] = {.arch = "llama", .format = Format::F16, .encoded = true};
    for (Format f : {Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0, Format::IQ4_NL,
                     Format::MXFP4})
      if (can_encode(f))
        m[std::string("llama ") + info(f).name] = {.arch = "llama", .format = f, .encoded = true};
    for (Format f : {Format::Q2_K, Format::Q3_K, Format::Q4_K, Format::Q5_K, Format::Q6_K})
      m[std::string("llama ") + info(f).name] = {
          .arch = "llama", .format = f, .width = 256, .layers = 1, .encoded = true};
    m["llama tiny scales"] = {.arch = "llama", .format = Format::Q8_0, .encoded = true, .matrix_size = 1e-4f};
    return m;
  }();
  return kModels;
}

struct Seen {
  int call;
  std::string value;
  std::vector<double> rows;
};

/// All values, those inside attention too, of a prompt and three steps, in the order of computation.
inline std::vector<Seen> run_all(const trace::Variant& v, Pool& pool, bool only_logits = false) {
  trace::VariantRun run{.tokens = prompt(27), .calls = {24, 1, 1, 1}};
  for (const Node& n : v.program.nodes) {
    if (only_logits && n.name != "logits") continue;
    run.values.push_back(n.name);
    if (std::get_if<Attention>(&n.op))
      run.values.push_back(n.name + ".kq"), run.values.push_back(n.name + ".probs");
  }
  std::vector<Seen> seen;
  trace::run_variant(v, pool, run, [&](const trace::VariantRows& r) {
    seen.push_back({r.call, std::string(r.value), {r.data.begin(), r.data.end()}});
  });
  return seen;
}

inline bool same_numbers(const std::vector<double>& a, const std::vector<double>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

/// The first value of `right` that `wrong` lacks or has otherwise; null: none.
inline const Seen* first_difference(const std::vector<Seen>& right, const std::vector<Seen>& wrong) {
  std::map<std::pair<int, std::string>, const Seen*> by_name;
  for (const Seen& s : wrong) by_name[{s.call, s.value}] = &s;
  for (const Seen& s : right) {
    const auto at = by_name.find({s.call, s.value});
    if (at == by_name.end() || !same_numbers(s.rows, at->second->rows)) return &s;
  }
  return nullptr;
}

/// Root of the summed squared difference over that of `a`, over the runs' logits; NaN at the same places is
/// no difference, elsewhere infinite.
inline double relative_error(const std::vector<Seen>& a, const std::vector<Seen>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    for (size_t j = 0; j < a[i].rows.size(); ++j) {
      const double x = a[i].rows[j], y = b[i].rows[j];
      if (std::isfinite(x) != std::isfinite(y)) return INFINITY;
      if (!std::isfinite(x)) continue;
      difference += (x - y) * (x - y), size += x * x;
    }
  }
  return a.size() != b.size() ? INFINITY : difference == 0 ? 0 : std::sqrt(difference / size);
}

/// Of faults whose edit says "@weights": the first value made with a weight that is read otherwise.
inline std::string first_with_changed_weight(const Program& p) {
  const auto changed = [&](Weight w) { return w >= 0 && p.weights[size_t(w)].read; };
  for (const Node& n : p.nodes) {
    const auto* e = std::get_if<Embed>(&n.op);
    const auto* l = std::get_if<Linear>(&n.op);
    const auto* norm = std::get_if<RmsNorm>(&n.op);
    if ((e && changed(e->table)) || (l && (changed(l->w) || changed(l->bias))) || (norm && changed(norm->w)))
      return trace::short_name(n.name);
  }
  return {};
}

inline bool is_numerical(const trace::Fault& f) { return f.id[0] != 'K' && f.id[0] != 'L'; }

/// Whether the fault is worth trying on that model: those of block formats are there for decoders.
inline bool concerns(const trace::Fault& f, const TinyOptions& o) {
  const bool special = o.encoded || o.layers != 3 || o.norm_size != 1;
  return is_numerical(f) &&
         (!special || f.first == "@weights" || f.needs != "" || f.id == "A11" || f.id == "C3");
}

}  // namespace plumb::testing
