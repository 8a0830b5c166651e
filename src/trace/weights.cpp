#include "trace/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "quant/encode.h"

namespace plumb::trace {
namespace {

using Verdict = WeightDifference::Verdict;

constexpr double kSlack = 2;           // quantisers differ in what they minimise
constexpr double kExact = 0x1p-22;     // two roundings of f32
constexpr int64_t kSampled = 1 << 14;  // weights from which a format's error is told

// Sums over one row.
struct RowSums {
  double delta = 0, a = 0, b = 0, dot = 0, shift = 0, largest = -1;
  int64_t at = -1;
  bool finite = true;
};

RowSums sums_of(const std::vector<float>& x, const std::vector<float>& y) {
  RowSums s;
  for (size_t i = 0; i < x.size(); ++i) {
    const double a = double(x[i]), b = double(y[i]), d = b - a;
    if (!std::isfinite(d)) {
      if (!(std::isinf(a) && a == b) && !(std::isnan(a) && std::isnan(b))) s.finite = false;
      continue;
    }
    s.delta += d * d, s.a += a * a, s.b += b * b, s.dot += a * b, s.shift += d;
    if (std::abs(d) > s.largest) s.largest = std::abs(d), s.at = int64_t(i);
  }
  return s;
}

// All rows that both have; equal columns.
std::vector<RowSums> scan(const Weight& a, const Weight& b, Pool& pool) {
  const int64_t rows = std::min(a.rows, b.rows);
  const int64_t each = std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(1, a.columns));
  std::vector<RowSums> sums(static_cast<size_t>(rows));
  const auto part = [&](int unit) {
    std::vector<float> x(size_t(a.columns)), y(x);
    for (int64_t r = unit * each; r < std::min(rows, (unit + 1) * each); ++r) {
      a.row(r, x.data()), b.row(r, y.data());
      sums[size_t(r)] = sums_of(x, y);
    }
  };
  const int units = int((rows + each - 1) / each);
  if (units > 1) {
    pool.each(units, part);
  } else {
    part(0);
  }
  return sums;
}

void add_up(const std::vector<RowSums>& rows, WeightDifference& d) {
  RowSums all;
  for (size_t r = 0; r < rows.size(); ++r) {
    const RowSums& s = rows[r];
    all.delta += s.delta, all.a += s.a, all.b += s.b, all.dot += s.dot, all.shift += s.shift;
    d.finite = d.finite && s.finite;
    if (s.largest > all.largest) all.largest = s.largest, d.row = int64_t(r), d.column = s.at;
  }
  const double n = double(rows.size()) * double(d.a->columns);
  const double size = std::max(all.a, all.b);
  d.error = all.delta == 0 ? 0 : std::sqrt(all.delta / std::max(size, 1e-300));
  if (!d.finite) d.error = INFINITY;
  if (all.a > 0 && all.b > 0) d.cosine = all.dot / std::sqrt(all.a * all.b), d.scale = all.dot / all.a;
  d.shift = n > 0 ? all.shift / n : 0;
  if (d.row < 0) return;
  std::vector<float> row(size_t(d.a->columns));
  d.a->row(d.row, row.data()), d.in_a = double(row[size_t(d.column)]);
  d.b->row(d.row, row.data()), d.in_b = double(row[size_t(d.column)]);
}

// Single rows that are wrong vanish in the error of a large matrix. Rows far smaller than the others are as
// exact as these.
void find_bad_rows(const std::vector<RowSums>& rows, double allowed, WeightDifference& d) {
  double mean = 0;
  for (const RowSums& s : rows) mean += std::max(s.a, s.b) / double(rows.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    const double size = std::sqrt(std::max(rows[r].a, rows[r].b)) + 0.1 * std::sqrt(mean);
    if (rows[r].finite && std::sqrt(rows[r].delta) <= 2 * allowed * size) continue;
    ++d.n_bad_rows;
    if (d.bad_rows.size() < 16) d.bad_rows.push_back(int64_t(r));
  }
}

// A constant factor shows below the noise of single weights: quantisers shrink by about the error's square.
bool is_scaled(const WeightDifference& d) {
  const double n = double(std::min(d.a->elements(), d.b->elements())), e = d.explained;
  return d.cosine > 0.5 && std::abs(d.scale - 1) > 4 * e * e + 8 * e / std::sqrt(n) + 1e-5 && e < 0.2;
}

void judge(const std::vector<RowSums>& rows, WeightDifference& d) {
  if (d.error == 0) return;
  d.explained = std::hypot(rounding_error(*d.b, d.a->format), rounding_error(*d.a, d.b->format));
  const double allowed = kSlack * d.explained + kExact;
  d.score = d.error / allowed;
  find_bad_rows(rows, allowed, d);
  if (d.score > 1 || d.n_bad_rows > 0 || is_scaled(d)) {
    d.verdict = Verdict::differs, d.score = std::max(d.score, 1.001);
  } else {
    d.verdict = d.error <= kExact ? Verdict::same : Verdict::quantisation;
  }
}

std::string shape_text(const Weight& w) {
  std::string text;
  for (int64_t n : w.ne) text += (text.empty() ? "[" : ", ") + std::to_string(n);
  return text + "]";
}

std::string convention_of(const Weight& a, const Weight& b) {
  const Weight& w = a.head_dim > 0 || a.plus != 0 ? a : b;
  if (w.head_dim > 0) return "rows of heads in the order of Hugging Face";
  return w.plus != 0 ? "norm without the 1 that GGUF adds" : "";
}

WeightDifference compare(const Weight& a, const Weight& b, Pool& pool) {
  WeightDifference d;
  d.name = a.name, d.a = &a, d.b = &b, d.convention = convention_of(a, b);
  if (a.columns != b.columns || a.elements() == 0) {
    if (a.ne != b.ne) d.verdict = Verdict::differs, d.error = d.score = INFINITY;
    return d;
  }
  const std::vector<RowSums> rows = scan(a, b, pool);
  add_up(rows, d);
  judge(rows, d);
  if (a.rows != b.rows) {
    const bool more = a.rows > b.rows;
    if (d.verdict != Verdict::differs)
      d.cause = fmt::format("{} has {} more rows; the others agree", more ? "the first" : "the second",
                            std::abs(a.rows - b.rows));
    d.verdict = Verdict::differs, d.score = std::max(d.score, 1.001);
  }
  return d;
}

// One that only one file has.
WeightDifference alone(const Weight& w, bool first, const Weights& other) {
  WeightDifference d;
  d.name = w.name, (first ? d.a : d.b) = &w;
  if (w.name == "rope_freqs.weight" && !other.is_gguf()) {
    d.convention = "made from the configuration";
    return d;
  }
  d.verdict = Verdict::differs, d.error = d.score = INFINITY;
  d.cause = first ? "missing in the second" : "missing in the first";
  return d;
}

}  // namespace

double rounding_error(const Weight& w, Format format) {
  if (format == Format::F32 || format == Format::F64) return 0;
  const FormatInfo& f = info(format);
  const double nominal = 1.6 * std::exp2(-8.0 * f.bytes / f.block);
  if (!can_encode(format) || w.columns % f.block != 0) return nominal;
  std::vector<float> x(size_t(w.columns)), y(x);
  std::vector<uint8_t> bytes(size_t(row_bytes(format, w.columns)));
  const int64_t n = std::clamp<int64_t>(kSampled / std::max<int64_t>(1, w.columns), 1, w.rows);
  double squares = 0, error = 0;
  uint64_t state = 1;
  for (int64_t i = 0; i < n; ++i) {
    w.row(i * w.rows / n, x.data());
    double size = 0;
    for (float v : x) size += double(v) * double(v);
    const float rms = float(std::sqrt(size / double(x.size())));
    for (float& v : x) {  // off the format's own grid, on which they may lie already
      state = state * 6364136223846793005u + 1442695040888963407u;
      v += rms * 0.25f * (float(state >> 40) * 0x1p-23f - 1);
      if (!(std::abs(v) < 60000)) return nominal;
    }
    encode(format, x.data(), w.columns, bytes.data());
    decode(format, bytes.data(), w.columns, y.data());
    const RowSums s = sums_of(x, y);
    squares += s.a, error += s.delta;
  }
  return squares > 0 ? std::sqrt(error / squares) : 0;
}

int WeightsDiff::count(Verdict v) const {
  return int(std::count_if(tensors.begin(), tensors.end(), [&](const auto& d) { return d.verdict == v; }));
}

int WeightsDiff::unnamed() const {
  return int(std::count_if(tensors.begin(), tensors.end(),
                           [](const auto& d) { return d.verdict == Verdict::differs && d.cause.empty(); }));
}

WeightsDiff diff_weights(const Weights& a, const Weights& b, Pool& pool, const WeightsProgress& progress) {
  WeightsDiff diff;
  double all = 0, done = 0;
  for (const Weight& w : a.tensors()) all += double(w.elements());
  const auto is_tied = [](const Weights& lacks, const Weight& w) {
    return w.name == "output.weight" && lacks.find("token_embd.weight") != nullptr;
  };
  std::set<std::string> seen;
  for (const Weight& w : a.tensors()) {
    seen.insert(w.name);
    const bool tied = !b.find(w.name) && is_tied(b, w);
    const Weight* other = tied ? b.find("token_embd.weight") : b.find(w.name);
    diff.common += other != nullptr;
    diff.tensors.push_back(other ? compare(w, *other, pool) : alone(w, true, b));
    if (tied) diff.tensors.back().convention = "the second has token_embd in its place";
    progress(w.name.c_str(), (done += double(w.elements())) / std::max(all, 1.0));
  }
  for (const Weight& w : b.tensors()) {
    if (seen.count(w.name) > 0) continue;
    const bool tied = is_tied(a, w);
    diff.tensors.push_back(tied ? compare(*a.find("token_embd.weight"), w, pool) : alone(w, false, a));
    diff.tensors.back().name = w.name;
    if (tied) diff.tensors.back().convention = "the first has token_embd in its place";
  }
  for (WeightDifference& d : diff.tensors) {
    if (d.verdict != Verdict::differs || !d.cause.empty()) continue;
    progress(d.name.c_str(), 1);
    d.cause = cause_of(d, b);
    if (d.cause.empty() && d.a->ne != d.b->ne)
      d.cause = fmt::format("shape {} in the first, {} in the second", shape_text(*d.a), shape_text(*d.b));
  }
  return diff;
}

}  // namespace plumb::trace
