// What kind of difference two tensors have: each kind is a way to read one of them, tried on a sample of
// weights. A kind is named when it makes the sample agree as well as the formats allow.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "trace/weights.h"

namespace plumb::trace {
namespace {

constexpr int64_t kSide = 32;    // rows and columns of a sample
constexpr int64_t kLine = 1024;  // columns, where there are no rows

struct Place {
  int64_t row, column;
};
using Reading = std::function<Place(int64_t row, int64_t column)>;

// Decodes rows as they are asked for, and keeps some.
class Reader {
 public:
  explicit Reader(const Weight& w) : w_(w) {}
  const Weight& weight() const { return w_; }

  double at(Place p) {
    if (rows_.size() > 256) rows_.clear();
    std::vector<float>& row = rows_[p.row];
    if (row.empty()) row.resize(size_t(w_.columns)), w_.row(p.row, row.data());
    return double(row[size_t(p.column)]);
  }
  double flat(int64_t index) { return at({index / w_.columns, index % w_.columns}); }

 private:
  const Weight& w_;
  std::map<int64_t, std::vector<float>> rows_;
};

std::vector<int64_t> spread(int64_t n, int64_t most) {
  std::vector<int64_t> list;
  const int64_t k = std::min(n, most);
  for (int64_t i = 0; i < k; ++i) list.push_back(i * n / k + (n > 2 * k ? i % 3 % 2 : 0));
  return list;
}

class Trial {
 public:
  Trial(const WeightDifference& d, const Weights& files) : d_(d), files_(files), a_(*d.a), b_(*d.b) {
    const bool line = d.a->rows == 1;
    for (int64_t r : spread(d.a->rows, kSide)) {
      for (int64_t c : spread(d.a->columns, line ? kLine : kSide)) places_.push_back({r, c});
    }
    // What is compared may be a sample of small weights: let half of the slack again pass.
    limit_ = 3 * std::max(d.explained,
                          std::hypot(rounding_error(*d.b, d.a->format), rounding_error(*d.a, d.b->format))) +
             1e-6;
  }

  std::string run() {
    if (d_.finite && d_.n_bad_rows > 0 && 4 * d_.n_bad_rows <= d_.a->rows) return rows_text();
    if (!d_.finite || d_.a->columns != d_.b->columns || d_.error > 0) {
      same_elements();
      bytes();
    }
    if (d_.a->columns == d_.b->columns) factor();
    if (best_.empty() || best_error_ > limit_ / 2) exchanged();
    if (best_.empty() && !d_.finite) return "one of them holds NaN or infinity";
    return best_;
  }

 private:
  // How far the sample lies from what `b` gives in its place.
  double error(const std::function<double(Place)>& b) {
    double delta = 0, size = 0;
    for (const Place& p : places_) {
      const double x = a_.at(p), y = b(p);
      delta += (x - y) * (x - y), size += std::max(x * x, y * y);
    }
    const double e = std::sqrt(delta / std::max(size, 1e-300));
    return std::isfinite(e) ? e : INFINITY;
  }

  // The second's format has rounded the sum.
  double error_plus(double plus) {
    double delta = 0, size = 0;
    for (const Place& p : places_) {
      const double y = b_.at(p), x = a_.at(p) + plus;
      delta += (x - y) * (x - y), size += std::max(x * x, y * y);
    }
    return std::sqrt(delta / std::max(size, 1e-300));
  }

  void consider(const std::string& cause, double e) {
    if (e <= limit_ && e < best_error_ / 2) best_ = cause, best_error_ = e;
  }
  void consider(const std::string& cause, const Reading& reading) {
    consider(cause, error([&](Place p) {
               const Place there = reading(p.row, p.column);
               return there.row < 0 || there.row >= d_.b->rows ? a_.at(p) : b_.at(there);
             }));
  }

  // The same numbers in another order.
  void same_elements() {
    const Weight &a = *d_.a, &b = *d_.b;
    if (a.elements() != b.elements() || a.rows == 1) return;
    if (a.columns != b.columns) {
      consider("shape read in the other order",
               error([&](Place p) { return b_.flat(p.row * a.columns + p.column); }));
    }
    if (a.columns == b.rows && a.rows == b.columns)
      consider("transposed", [](int64_t r, int64_t c) { return Place{c, r}; });
    if (a.columns != b.columns) return;
    if (a.columns != a.rows) {
      consider("transposed under the same shape",
               error([&](Place p) { return b_.flat(p.column * a.rows + p.row); }));
      consider("transposed under the same shape", error([&](Place p) {
                 const int64_t i = p.row * a.columns + p.column;  // a's buffer is the transposed one
                 return b_.flat(i % a.rows * a.columns + i / a.rows);
               }));
    }
    permuted();
  }

  void permuted() {
    const int64_t rows = d_.a->rows, columns = d_.a->columns;
    for (int64_t dim : {8, 16, 32, 64, 80, 96, 112, 128, 160, 192, 256}) {
      if (rows % dim != 0) continue;
      const std::string where = fmt::format(" (head size {})", dim);
      consider("rows permuted by heads: halves in the first, pairs in the second" + where,
               [=](int64_t r, int64_t c) {
                 const int64_t in = r % dim;
                 return Place{r - in + (in < dim / 2 ? 2 * in : 2 * (in - dim / 2) + 1), c};
               });
      consider("rows permuted by heads: pairs in the first, halves in the second" + where,
               [=](int64_t r, int64_t c) {
                 const int64_t in = r % dim;
                 return Place{r - in + in / 2 + in % 2 * (dim / 2), c};
               });
      const int64_t heads = rows / dim;
      if (heads < 2) continue;
      consider("rows of heads interleaved" + where,
               [=](int64_t r, int64_t c) { return Place{r % dim * heads + r / dim, c}; });
      consider("rows of heads interleaved" + where,
               [=](int64_t r, int64_t c) { return Place{r % heads * dim + r / heads, c}; });
    }
    for (int64_t by : {1, -1}) {
      consider(fmt::format("rows shifted by {}", by), [=](int64_t r, int64_t c) { return Place{r + by, c}; });
    }
    if (columns % 32 != 0) return;
    consider("halves of blocks of 32 interleaved", [](int64_t r, int64_t c) {
      const int64_t in = c % 32;
      return Place{r, c - in + in / 2 + in % 2 * 16};
    });
    consider("halves of blocks of 32 interleaved", [](int64_t r, int64_t c) {
      const int64_t in = c % 32;
      return Place{r, c - in + (in < 16 ? 2 * in : 2 * (in - 16) + 1)};
    });
  }

  // Where the f16 numbers of a block lie; for floats all bytes of a number.
  static std::vector<std::pair<int, int>> swaps(Format f) {
    switch (f) {
      case Format::F16:
      case Format::BF16:
      case Format::Q4_0:
      case Format::Q5_0:
      case Format::Q8_0:
      case Format::IQ4_NL:
      case Format::IQ4_XS:
        return {{0, 2}};
      case Format::F32:
        return {{0, 4}};
      case Format::F64:
        return {{0, 8}};
      case Format::Q4_1:
      case Format::Q5_1:
      case Format::Q4_K:
      case Format::Q5_K:
        return {{0, 2}, {2, 2}};
      case Format::Q2_K:
        return {{80, 2}, {82, 2}};
      case Format::Q3_K:
        return {{108, 2}};
      case Format::Q6_K:
        return {{208, 2}};
      default:
        return {};
    }
  }

  // A weight of `w` when the bytes of its scales are exchanged; decodes a row at a time.
  static double swapped(const Weight& w, Place p, std::map<int64_t, std::vector<float>>& rows) {
    std::vector<float>& row = rows[p.row];
    if (row.empty()) {
      const int64_t size = row_bytes(w.format, w.columns);
      const uint8_t* stored = w.data + w.stored_row(p.row) * size;
      std::vector<uint8_t> bytes(stored, stored + size);
      for (auto at = bytes.begin(); at != bytes.end(); at += info(w.format).bytes) {
        for (const auto& [from, n] : swaps(w.format)) std::reverse(at + from, at + from + n);
      }
      row.resize(size_t(w.columns));
      decode(w.format, bytes.data(), w.columns, row.data());
      for (float& x : row) x += w.plus;
    }
    return double(row[size_t(p.column)]);
  }

  void bytes() {
    const Weight &a = *d_.a, &b = *d_.b;
    if (a.columns != b.columns || a.rows != b.rows) return;
    const auto what = [](const Weight& w) {
      return info(w.format).block == 1 ? "the bytes of its numbers" : "the bytes of its scales";
    };
    std::map<int64_t, std::vector<float>> rows_a, rows_b;
    if (!swaps(b.format).empty())
      consider(fmt::format("the second has {} swapped", what(b)),
               error([&](Place p) { return swapped(b, p, rows_b); }));
    if (swaps(a.format).empty()) return;
    double delta = 0, size = 0;
    for (const Place& p : places_) {
      const double x = swapped(a, p, rows_a), y = b_.at(p);
      delta += (x - y) * (x - y), size += y * y;
    }
    const double e = std::sqrt(delta / std::max(size, 1e-300));
    consider(fmt::format("the first has {} swapped", what(a)), std::isfinite(e) ? e : INFINITY);
  }

  void factor() {
    if (!d_.finite || d_.a->rows != d_.b->rows) return;
    for (double plus : {1.0, -1.0})
      consider(fmt::format("the second is the first {} 1", plus > 0 ? "plus" : "minus"), error_plus(plus));
    if (d_.scale != 0 && std::abs(d_.scale - 1) > 1e-5)
      consider(fmt::format("the second is the first times {:.5g}", d_.scale),
               error([&](Place p) { return b_.at(p) / d_.scale; }));
    if (d_.shift != 0)
      consider(fmt::format("the second is the first plus {:.5g}", d_.shift), error_plus(d_.shift));
  }

  void exchanged() {
    for (const Weight& other : files_.tensors()) {
      if (&other == d_.b || other.columns != d_.a->columns || other.rows != d_.a->rows) continue;
      Reader reader(other);
      consider("the second holds the first's " + d_.name + " in " + other.name,
               error([&](Place p) { return reader.at(p); }));
    }
  }

  std::string rows_text() const {
    std::string text = d_.n_bad_rows == 1 ? "only row" : "only rows";
    for (size_t i = 0; i < d_.bad_rows.size() && i < 4; ++i)
      text += (i == 0 ? " " : ", ") + std::to_string(d_.bad_rows[i]);
    if (d_.n_bad_rows > 4) text += fmt::format(", ... ({} of {})", d_.n_bad_rows, d_.a->rows);
    return text;
  }

  const WeightDifference& d_;
  const Weights& files_;
  Reader a_, b_;
  std::vector<Place> places_;
  double limit_, best_error_ = INFINITY;
  std::string best_;
};

}  // namespace

std::string cause_of(const WeightDifference& d, const Weights& second) { return Trial(d, second).run(); }

}  // namespace plumb::trace
