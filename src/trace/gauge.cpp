// Differences of representation that are no faults (docs/trace-format.md, Gauges): undone before comparing.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trace/compare.h"

namespace plumb::trace {
namespace {

bool ends_with_any(const std::string& value, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(), [&](const char* end) { return value.ends_with(end); });
}

// Hugging Face's row order of q and k to GGUF's: pairs (j, j + d / 2) become neighbours.
void halves_to_pairs(std::span<double> row, int64_t dim) {
  std::vector<double> head(static_cast<size_t>(dim));
  for (size_t at = 0; at + size_t(dim) <= row.size(); at += size_t(dim)) {
    std::copy_n(row.begin() + int64_t(at), dim, head.begin());
    for (int64_t j = 0; j < dim / 2; ++j) {
      row[at + size_t(2 * j)] = head[size_t(j)];
      row[at + size_t(2 * j) + 1] = head[size_t(j + dim / 2)];
    }
  }
}

void undo_shift(std::span<double> theirs, std::span<const double> ours) {
  double shift = 0;
  for (size_t i = 0; i < ours.size(); ++i) shift += (ours[i] - theirs[i]) / double(ours.size());
  for (double& x : theirs) x += shift;
}

// The weight of the norm that makes the value; empty where there is none.
std::vector<float> norm_weight(const Model* model, const std::string& value) {
  const Value v = model ? model->program().find(value) : -1;
  const auto* norm = v < 0 ? nullptr : std::get_if<RmsNorm>(&model->program().nodes[size_t(v)].op);
  if (!norm) return {};
  const WeightRef& w = model->program().weights[size_t(norm->w)];
  std::vector<float> weight(size_t(w.columns));
  decode(w.format, w.data, w.columns, weight.data());
  return weight;
}

}  // namespace

std::vector<Gauge> Gauges::of(const std::string& value, int64_t heads, int64_t dim) const {
  std::vector<Gauge> list;
  if (value == "logits") list.push_back({"logits_shift", undo_shift});
  const bool query = ends_with_any(value, {".attn_q", ".q_rope"});
  if (heads > 0 && dim % 2 == 0 && arch_ == "llama" &&
      (query || ends_with_any(value, {".attn_k", ".k_rope"})))
    list.push_back(
        {"qk_halves", [dim](std::span<double> row, std::span<const double>) { halves_to_pairs(row, dim); }});
  if (heads > 0 && query) {
    list.push_back({"q_scaled", [dim](std::span<double> row, std::span<const double>) {
                      for (double& x : row) x *= std::sqrt(double(dim));
                    }});
  }
  if (std::vector<float> weight = norm_weight(model_, value); !weight.empty()) {
    list.push_back({"norm_unweighted", [weight](std::span<double> row, std::span<const double>) {
                      for (size_t i = 0; i < row.size(); ++i) row[i] *= double(weight[i % weight.size()]);
                    }});
  }
  return list;
}

void Gauges::remember(const Difference& compared, int64_t heads, int64_t dim, Rows& rows) const {
  for (Gauge& gauge : of(compared.value, heads, dim)) {
    if (compared.gauge.find(gauge.name) != std::string::npos) rows.found(compared.value, std::move(gauge));
  }
}

std::vector<std::string> parts_of_fused(const std::string& value) {
  const size_t dot = value.rfind('.');
  if (dot == std::string::npos) return {};
  const std::string blk = value.substr(0, dot + 1), what = value.substr(dot + 1);
  if (what == "attn_qkv") return {blk + "attn_q", blk + "attn_k", blk + "attn_v"};
  if (what == "ffn_gate_up") return {blk + "ffn_gate", blk + "ffn_up"};
  return {};
}

namespace {

std::vector<Rows::Part> side_by_side(const std::string& fused, const Program& program) {
  std::vector<Rows::Part> parts;
  int32_t offset = 0;
  for (const std::string& part : parts_of_fused(fused)) {
    const Value v = program.find(part);
    if (v < 0) return {};
    parts.push_back({part, offset, program.shape(v).size()});
    offset += parts.back().length;
  }
  return parts;
}

// Per key-value head: its query heads, the key head, the value head.
std::vector<Rows::Part> by_heads(const std::string& fused, const Program& program) {
  std::vector<Rows::Part> parts = side_by_side(fused, program);
  if (parts.size() != 3) return parts;
  const int32_t heads = program.shape(program.find(parts[1].value)).heads;
  int32_t period = 0;
  for (Rows::Part& part : parts) {
    if (part.length % heads != 0) return side_by_side(fused, program);
    part.offset = period, part.piece = part.length / heads;
    period += part.piece;
  }
  for (Rows::Part& part : parts) part.period = period;
  return parts;
}

}  // namespace

void split_fused(Rows& rows, const Program& program,
                 const std::function<bool(const std::string& blk)>& by_head) {
  for (int layer = 0; layer < program.n_layer; ++layer) {
    const std::string blk = fmt::format("blk.{}", layer), qkv = blk + ".attn_qkv",
                      both = blk + ".ffn_gate_up";
    if (!rows.full(qkv).empty())
      rows.split(qkv, by_head(blk) ? by_heads(qkv, program) : side_by_side(qkv, program));
    rows.split(both, side_by_side(both, program));
  }
}

bool is_qkv_by_head(const Rows& theirs, const Rows& ours, const Program& program, const std::string& blk) {
  const std::string fused = blk + ".attn_qkv", values = blk + ".attn_v";
  const auto& all = theirs.full(fused);
  const auto& right = ours.full(values);
  const std::vector<Rows::Part> one = side_by_side(fused, program), other = by_heads(fused, program);
  if (all.empty() || one.size() != 3) return false;
  const auto tagged = [](const std::vector<std::string>& gauges) {
    return std::find(gauges.begin(), gauges.end(), kQkvByHead) != gauges.end();
  };
  if (tagged(theirs.trace().header().gauges) || tagged(all.begin()->second.record->gauges)) return true;
  Comparison plain(values, 1), heads(values, 1);  // of v, which no other difference of representation touches
  for (const auto& [position, at] : all) {
    const auto ours_at = right.find(position);
    if (ours_at == right.end() || at.size() != one[2].offset + one[2].length) continue;
    const std::vector<double> y = ours.row(ours_at->second);
    for (const auto& [parts, sum] : {std::pair(&one, &plain), std::pair(&other, &heads)}) {
      const Rows::Part& v = (*parts)[2];
      sum->add(position, theirs.row({at.record, at.row, v.offset, v.length, v.piece, v.period}), y);
    }
  }
  return heads.result().error < plain.result().error / 4;
}

}  // namespace plumb::trace
