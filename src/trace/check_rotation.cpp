// The rotation of queries and keys: it keeps the norm of each pair, leaves token 0 as it is, and its angles
// at position 1 tell the base of the frequencies.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "program/ops.h"
#include "trace/check.h"

namespace plumb::trace {
namespace {

using Outcome = Finding::Outcome;

// One value before and after, and what its pairs say under either style.
struct Rotation {
  std::string value;
  double pairs = 0, halves = 0;                     // how far norms of pairs differ, rms over pairs
  double magnitude = 1;                             // of all norms after over all before: YaRN's factor
  double zero = 0;                                  // how far token 0 moved
  std::vector<double> angles_pairs, angles_halves;  // at position 1, by pair, mean over heads
};

double norm(double x, double y) { return std::sqrt(x * x + y * y); }

struct Pair {
  size_t a, b;
};
Pair pair_of(bool half, size_t base, size_t dim, size_t i) {
  return half ? Pair{base + i, base + i + dim / 2} : Pair{base + 2 * i, base + 2 * i + 1};
}

double length(const std::vector<double>& x) {
  double squares = 0;
  for (double v : x) squares += v * v;
  return std::sqrt(squares);
}

double change(bool half, const std::vector<double>& x, const std::vector<double>& y, size_t dim) {
  double difference = 0, size = 0;
  for (size_t base = 0; base < x.size(); base += dim) {
    for (size_t i = 0; i < dim / 2; ++i) {
      const auto [a, b] = pair_of(half, base, dim, i);
      const double before = norm(x[a], x[b]), after = norm(y[a], y[b]);
      difference += (after - before) * (after - before), size += before * before;
    }
  }
  return std::sqrt(difference / std::max(size, 1e-300));
}

// The angle of each pair, weighted by its size over the heads.
std::vector<double> angles(bool half, const std::vector<double>& x, const std::vector<double>& y,
                           size_t dim) {
  std::vector<double> out;
  for (size_t i = 0; i < dim / 2; ++i) {
    double dot = 0, cross = 0;
    for (size_t base = 0; base < x.size(); base += dim) {
      const auto [a, b] = pair_of(half, base, dim, i);
      dot += x[a] * y[a] + x[b] * y[b], cross += x[a] * y[b] - x[b] * y[a];
    }
    out.push_back(std::atan2(cross, dot));
  }
  return out;
}

// base^(-2 i / dim) fitted to the angles of one step; 0: they do not follow such a law.
double base_of(const std::vector<double>& angles, size_t dim) {
  double xx = 0, xy = 0, worst = 0;
  int n = 0;
  for (size_t i = 1; i < angles.size(); ++i) {
    if (!(angles[i] > 1e-4)) continue;
    const double x = -2 * double(i) / double(dim);
    xx += x * x, xy += x * std::log(angles[i]), ++n;
  }
  if (n < 4) return 0;
  const double slope = xy / xx;
  for (size_t i = 1; i < angles.size(); ++i) {
    if (angles[i] > 1e-4)
      worst = std::max(worst, std::abs(std::log(angles[i]) + slope * 2 * double(i) / double(dim)));
  }
  return worst < 0.1 ? std::exp(slope) : 0;
}

class Rotations {
 public:
  Rotations(const Rows& rows, const Model* model) : rows_(rows), model_(model) {}

  void take(const std::string& before, const std::string& after) {
    const auto &x = rows_.full(before), &y = rows_.full(after);
    if (x.empty() || y.empty() || y.begin()->second.record->heads == 0) return;
    const size_t dim = size_t(y.begin()->second.record->dim);
    if (dim % 2 != 0 || x.begin()->second.record->row_size() != y.begin()->second.record->row_size()) return;
    Rotation r;
    r.value = after;
    int64_t n = 0;
    for (const auto& [position, at] : y) {
      const auto there = x.find(position);
      if (there == x.end() || n > 64) continue;
      const std::vector<double> a = rows_.row(there->second);
      std::vector<double> b = rows_.row(at);
      if (n == 0) r.magnitude = length(b) / std::max(length(a), 1e-300);
      for (double& v : b) v /= r.magnitude;
      r.pairs = std::max(r.pairs, change(false, a, b, dim)),
      r.halves = std::max(r.halves, change(true, a, b, dim));
      if (position == 0) {
        Comparison c(after, 1);
        c.add(0, b, a), r.zero = c.result().error;
      }
      if (position == 1) r.angles_pairs = angles(false, a, b, dim), r.angles_halves = angles(true, a, b, dim);
      ++n;
    }
    if (n > 1) list_.push_back(std::move(r));
    dim_ = dim;
  }

  void report(std::vector<Finding>& out) const {
    if (list_.empty()) return;
    int pairs = 0, halves = 0;
    for (const Rotation& r : list_) pairs += r.pairs < kKept, halves += r.halves < kKept;
    const bool half = halves > pairs;
    const int kept = std::max(pairs, halves), all = int(list_.size());
    const auto bad = std::find_if(list_.begin(), list_.end(),
                                  [&](const Rotation& r) { return (half ? r.halves : r.pairs) >= kKept; });
    const char* style = half ? "(i, i + d/2)" : "(2i, 2i + 1)";
    if (bad == list_.end())
      out.push_back({"rope norms", Outcome::holds, "",
                     fmt::format("rotation keeps the norm of the pairs {} in {} values", style, all)});
    else
      out.push_back({"rope norms", Outcome::violated, bad->value,
                     kept == 0 ? "no style of pairs keeps its norms"
                               : fmt::format("the pairs {} keep their norms in {} of {} values only", style,
                                             kept, all)});
    const auto moved =
        std::find_if(list_.begin(), list_.end(), [](const Rotation& r) { return r.zero > kKept; });
    if (moved != list_.end())
      out.push_back(
          {"rope origin", Outcome::violated, moved->value,
           fmt::format("token 0 is turned as well ({:.2g}): positions do not begin at 0", moved->zero)});
    if (kept > 0) base(half, out);
    magnitude(out);
  }

 private:
  static constexpr double kKept = 0x1p-6;  // bf16 before and after

  const Rope* rope_of(const std::string& value) const {
    const Value v = model_ ? model_->program().find(value) : -1;
    return v < 0 ? nullptr : std::get_if<Rope>(&model_->program().nodes[size_t(v)].op);
  }

  void magnitude(std::vector<Finding>& out) const {
    const auto at = std::find_if(list_.begin(), list_.end(), [&](const Rotation& r) {
      const Rope* rope = rope_of(r.value);
      const double right = rope ? ops::rope_turn(*rope, 1, 0, 0).magnitude : 1;
      return std::abs(r.magnitude / right - 1) > kKept;
    });
    if (at == list_.end()) return;
    const Rope* rope = rope_of(at->value);
    const std::string text = fmt::format("rotation multiplies all norms by {:.4g}", at->magnitude);
    if (rope)
      out.push_back({"rope magnitude", Outcome::violated, at->value,
                     fmt::format("{}, by this file it should be {:.4g}", text,
                                 ops::rope_turn(*rope, 1, 0, 0).magnitude),
                     true});
    else
      out.push_back({"rope magnitude", Outcome::note, at->value, text + ": YaRN's factor, or a fault"});
  }

  void base(bool half, std::vector<Finding>& out) const {
    const Rotation& r = list_.front();
    const double found = base_of(half ? r.angles_halves : r.angles_pairs, dim_);
    if (found <= 0) return;
    const Rope* rope = rope_of(r.value);
    const double right =
        rope && rope->factors < 0 && rope->scaling == RopeScaling::none ? double(rope->freq_base) : 0;
    const std::string text = fmt::format("the angles at position 1 are those of base {:.6g}", found);
    if (right <= 0)
      out.push_back({"rope base", Outcome::note, r.value, text});
    else if (std::abs(std::log(found / right)) < 0.1)
      out.push_back(
          {"rope base", Outcome::holds, r.value, fmt::format("{}; the file says {:.6g}", text, right)});
    else
      out.push_back({"rope base", Outcome::violated, r.value,
                     fmt::format("{}, but the file says {:.6g}", text, right), true});
  }

  const Rows& rows_;
  const Model* model_;
  std::vector<Rotation> list_;
  size_t dim_ = 0;
};

}  // namespace

void check_rotation(const Rows& rows, const Model* model, std::vector<Finding>& out) {
  Rotations rotations(rows, model);
  for (int layer = 0;; ++layer) {
    const std::string blk = fmt::format("blk.{}.", layer);
    if (rows.full(blk + "q_rope").empty() && rows.full(blk + "k_rope").empty()) break;
    for (const char* which : {"q", "k"}) {
      const std::string normed = fmt::format("{}attn_{}_norm", blk, which);
      rotations.take(rows.full(normed).empty() ? fmt::format("{}attn_{}", blk, which) : normed,
                     fmt::format("{}{}_rope", blk, which));
    }
  }
  rotations.report(out);
}

}  // namespace plumb::trace
