// Differences of representation that are no faults (docs/trace-format.md, Gauges): undone before comparing.
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

}  // namespace

std::vector<Gauge> gauges_of(const std::string& value, const std::string& arch, int64_t heads, int64_t dim) {
  std::vector<Gauge> list;
  if (value == "logits") list.push_back({"logits_shift", undo_shift});
  const bool query = ends_with_any(value, {".attn_q", ".q_rope"});
  if (heads > 0 && dim % 2 == 0 && arch == "llama" && (query || ends_with_any(value, {".attn_k", ".k_rope"})))
    list.push_back(
        {"qk_halves", [dim](std::span<double> row, std::span<const double>) { halves_to_pairs(row, dim); }});
  if (heads > 0 && query) {
    list.push_back({"q_scaled", [dim](std::span<double> row, std::span<const double>) {
                      for (double& x : row) x *= std::sqrt(double(dim));
                    }});
  }
  return list;
}

}  // namespace plumb::trace
