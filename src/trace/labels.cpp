#include "trace/labels.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

namespace plumb::trace {
namespace {

struct Place {
  int layer = -1;
  std::string value;  // without "blk.L."
};

Place place_of(const std::string& name) {
  if (!name.starts_with("blk.")) return {-1, name};
  const size_t dot = name.find('.', 4);
  if (dot == std::string::npos || dot > 12 || name.find_first_not_of("0123456789", 4) != dot)
    return {-1, name};
  return {std::atoi(name.c_str() + 4), name.substr(dot + 1)};
}

// "blk.3.in" is "blk.2.ffn_out"; "blk.0.in" is what leaves the embedding.
void settle_input(Record& r, const std::string& arch) {
  const Place p = place_of(r.value);
  if (p.layer < 0 || p.value != "in") return;
  if (r.raw.empty()) r.raw = r.value;
  r.value = p.layer > 0                 ? fmt::format("blk.{}.ffn_out", p.layer - 1)
            : arch.starts_with("gemma") ? "inp_scaled"
                                        : "token_embd";
}

// The rms of the branch candidates and of the stream around one layer, at one step.
struct Layer {
  double in = 0, attn = 0, ffn = 0, out = 0;
};

double rms_of(const Record& r) { return r.stats[Stat::rms] ? r.stats[Stat::rms]->value : 0; }

std::map<std::pair<int, int>, Layer> layers_of(const std::vector<Record>& records) {
  std::map<std::pair<int, int>, Layer> layers;  // by step and layer
  for (const Record& r : records) {
    const std::string& name = r.candidates.empty() ? r.value : r.candidates.front();
    const Place p = place_of(name);
    if (p.layer >= 0) {
      Layer& l = layers[{r.step, p.layer}];
      if (p.value == "attn_output") l.attn = rms_of(r);
      if (p.value == "ffn_down") l.ffn = rms_of(r);
      if (p.value == "ffn_out" && r.candidates.empty()) l.out = rms_of(r);
      if (p.value == "ffn_out" && r.candidates.empty()) layers[{r.step, p.layer + 1}].in = rms_of(r);
    } else if (name == "token_embd" || name == "inp_scaled") {
      if (rms_of(r) > 0) layers[{r.step, 0}].in = rms_of(r);
    }
  }
  return layers;
}

}  // namespace

std::vector<SettledLabel> settle_labels(std::vector<Record>& records, const std::string& arch) {
  for (Record& r : records) settle_input(r, arch);
  std::vector<SettledLabel> out;
  const auto layers = layers_of(records);
  for (Record& r : records) {
    if (r.candidates.size() != 2 || !r.value.empty()) continue;
    const Place branch = place_of(r.candidates[0]), stream = place_of(r.candidates[1]);
    const bool known = (branch.value == "attn_output" && stream.value == "attn_out") ||
                       (branch.value == "ffn_down" && stream.value == "ffn_out");
    const auto at = layers.find({r.step, branch.layer});
    if (!known || at == layers.end()) continue;
    const Layer& l = at->second;
    if (l.in <= 0 || l.attn <= 0 || l.ffn <= 0 || l.out <= 0) continue;
    const double sum = std::sqrt(l.in * l.in + l.attn * l.attn + l.ffn * l.ffn);
    const double as_branch = std::abs(std::log(sum / l.out)), as_stream = std::abs(std::log(l.ffn / l.out));
    if (std::min(as_branch, as_stream) > 0.1 || std::abs(as_branch - as_stream) < 0.1) continue;
    r.value = r.candidates[as_branch < as_stream ? 0 : 1];
    out.push_back({r.raw, r.value,
                   as_branch < as_stream
                       ? fmt::format("sqrt(in^2 + attention^2 + ffn^2) = {:.6f} beside {:.6f}", sum, l.out)
                       : fmt::format("{:.6f} equals the layer's output {:.6f}", l.ffn, l.out)});
  }
  return out;
}

}  // namespace plumb::trace
