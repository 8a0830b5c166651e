// One value of two traces: element by element where both have elements, else by what summaries tell.
#include <algorithm>
#include <cmath>

#include "trace/compare.h"
#include "trace/measure.h"

namespace plumb::trace {
namespace {

using Pairs = std::vector<std::pair<Rows::At, Rows::At>>;  // theirs, ours

Difference compare_pairs(const Rows& theirs, const Rows& ours, const std::string& value, const Pairs& pairs,
                         const Gauge* gauge) {
  Comparison c(value, pairs.front().second.record->heads);
  for (const auto& [a, b] : pairs) {
    std::vector<double> x = theirs.row(a);
    const std::vector<double> y = ours.row(b);
    if (gauge) gauge->undo(x, y);
    c.add(b.record->first + b.row, x, y);
  }
  Difference d = c.result();
  if (gauge) d.gauge = gauge->name;
  return d;
}

// Keeps the largest error with the print precision that belongs to it.
struct Largest {
  Difference& d;
  void take(double error, double print) {
    if (std::isnan(error)) error = INFINITY;
    if (error - print > d.error - d.print) d.error = error, d.print = print;
  }
};

void compare_elements(const std::vector<Number>& a, const std::vector<Number>& b, double rms, Largest& most) {
  if (a.empty() || a.size() != b.size()) return;
  double squares = 0, print = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    rms = std::max(rms, std::abs(b[i].value));
    squares += std::pow(a[i].value - b[i].value, 2);
    print = std::max(print, a[i].unit + b[i].unit);
  }
  most.take(std::sqrt(squares / double(a.size())) / rms, print / rms);
}

// Log-probabilities are logits less a constant of their row.
void undo_shift(std::vector<Number>& theirs, const std::vector<Number>& ours, Difference& d) {
  double shift = 0;
  for (size_t i = 0; i < theirs.size(); ++i)
    shift += (ours[i].value - theirs[i].value) / double(theirs.size());
  for (Number& n : theirs) n.value += shift;
  d.gauge = "logits_shift";
}

Difference compare_records(const Record& a, const Record& b) {
  Difference d;
  d.from = "stats", d.value = b.value, d.tokens = b.tokens, d.elements = b.tokens * b.row_size();
  Largest most{d};
  const auto& size = b.stats[Stat::rms];
  if (!size) return d;
  const double rms = std::max(size->value, kNothing);
  if (a.stats[Stat::rms] && a.stats[Stat::rms]->value > 0) d.scale = rms / a.stats[Stat::rms]->value;
  for (size_t t = 0; t < a.rms_per_token.size() && a.rms_per_token.size() == b.rms_per_token.size(); ++t) {
    const double ours = b.rms_per_token[t].value, token = std::max(ours, kNothing);
    const double error = std::abs(a.rms_per_token[t].value - ours) / token;
    d.by_token.emplace_back(b.first + int64_t(t), error);
    most.take(error, a.rms_per_token[t].unit / token);
  }
  compare_elements(a.head8, b.head8, rms, most), compare_elements(a.tail8, b.tail8, rms, most);
  std::vector<Number> x, y;
  for (size_t i = 0; i < a.samples.size() && a.samples.size() == b.samples.size(); ++i)
    x.push_back(a.samples[i].second), y.push_back(b.samples[i].second);
  if (std::find(a.gauges.begin(), a.gauges.end(), "logits_shift") != a.gauges.end()) undo_shift(x, y, d);
  compare_elements(x, y, rms, most);
  if (!a.sketch.empty() && !b.sketch.empty()) {
    double squares = 0;
    for (size_t j = 0; j < kSketch; ++j) squares += std::pow(a.sketch[j].value - b.sketch[j].value, 2);
    most.take(std::sqrt(squares / std::max(1.0, double(d.elements))) / rms, 0);
    d.from = "sketch";
  }
  for (Stat s : {Stat::nan, Stat::inf}) {
    if (a.stats[s] && a.stats[s]->value > 0 && b.stats[s] && b.stats[s]->value == 0)
      d.finite = false, d.error = INFINITY;
  }
  d.parts = compare_stats(a.stats, b.stats);
  if (d.error > 0) d.parts.push_back({std::nullopt, d.error, d.print});
  for (const StatError& part : d.parts) most.take(part.error, part.print);
  return d;
}

}  // namespace

std::optional<Record> summary_of(const Rows& ours, const std::string& value, const Record& like) {
  const auto& full = ours.full(value);
  if (full.empty()) {
    for (const Record* r : ours.summaries(value)) {
      if (r->first == like.first && r->tokens == like.tokens) return *r;
    }
    return std::nullopt;
  }
  const Record& shape = *full.begin()->second.record;
  Record r;
  r.value = value, r.heads = shape.heads, r.dim = shape.dim;
  r.first = like.last ? full.last().first : like.first >= 0 ? like.first : full.begin()->first;
  r.tokens = like.last ? 1 : like.tokens > 0 ? like.tokens : int64_t(full.size());
  std::vector<double> rows;
  for (int64_t t = 0; t < r.tokens; ++t) {
    const auto at = full.find(r.first + t);
    if (at == full.end()) return std::nullopt;
    const std::vector<double> row = ours.row(at->second);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  measure(rows, !like.sketch.empty(), r);
  for (const auto& [index, ignored] : like.samples) {
    if (index < int64_t(rows.size())) r.samples.push_back({index, {rows[size_t(index)], 0}});
  }
  return r;
}

std::vector<StatError> compare_stats(const Stats& theirs, const Stats& ours) {
  std::vector<StatError> out;
  if (!ours[Stat::rms]) return out;
  const double rms = std::max(ours[Stat::rms]->value, kNothing);
  for (Stat s :
       {Stat::mean, Stat::rms, Stat::min, Stat::max, Stat::absmax, Stat::q01, Stat::q50, Stat::q99}) {
    if (!theirs[s] || !ours[s]) continue;
    const double unit = std::max(rms, std::abs(ours[s]->value));  // an extreme is as exact as its size
    const double error = std::abs(theirs[s]->value - ours[s]->value) / unit;
    out.push_back({s, std::isnan(error) ? INFINITY : error, (theirs[s]->unit + ours[s]->unit) / unit});
  }
  return out;
}

std::optional<Difference> compare_full(const Rows& theirs, const Rows& ours, const std::string& value,
                                       const Gauges& gauges, int64_t positions) {
  const auto &a = theirs.full(value), &b = ours.full(value);
  Pairs pairs;
  for (const auto& [position, at] : b) {
    const auto other = a.find(position);
    if (other == a.end() || position >= positions) continue;
    if (other->second.size() < at.size()) return std::nullopt;
    if (other->second.size() == at.size()) pairs.emplace_back(other->second, at);
  }
  if (pairs.empty()) return std::nullopt;
  Difference best = compare_pairs(theirs, ours, value, pairs, nullptr);
  if (best.error < 0.05) return best;
  const Record& shape = *pairs.front().second.record;
  const double plain = best.error;
  for (const Gauge& gauge : gauges.of(value, shape.heads, shape.dim)) {
    Difference d = compare_pairs(theirs, ours, value, pairs, &gauge);
    if (d.error < plain / 4 && d.error < best.error) best = std::move(d);
  }
  return best;
}

std::optional<Difference> compare_summaries(const Rows& theirs, const Rows& ours, const std::string& value,
                                            int64_t positions) {
  std::optional<Difference> worst;
  for (const Record* a : theirs.summaries(value)) {
    if (a->first >= 0 && a->first + a->tokens > positions) continue;
    const std::optional<Record> b = summary_of(ours, value, *a);
    if (!b) continue;
    Difference d = compare_records(*a, *b);
    if (!worst || d.error - d.print > worst->error - worst->print) worst = std::move(d);
  }
  return worst;
}

}  // namespace plumb::trace
