// Tests on full values: what the stream's additions, the softmax and the first token's attention must give.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trace/check.h"

namespace plumb::trace {
namespace {

using Outcome = Finding::Outcome;

constexpr double kRounding = 0x1p-7;  // two roundings to bf16, the coarsest format in which engines add

// The worst of one test over all layers, and how many layers had evidence.
struct Tally {
  const char* test;
  int places = 0, broken = 0;
  double worst = 0;
  std::string first = {}, at = {};

  void take(const std::string& value, double error, double allowed = kRounding) {
    ++places;
    if (std::isnan(error)) return;  // check_finite tells
    if (error > worst) worst = error, at = value;
    if (error > allowed && broken++ == 0) first = value;
  }

  void report(const std::string& holds, const std::string& violated, std::vector<Finding>& out) const {
    if (places == 0) return;
    if (broken == 0)
      out.push_back(
          {test, Outcome::holds, "", fmt::format("{} in {} places, within {:.2g}", holds, places, worst)});
    else
      out.push_back(
          {test, Outcome::violated, first,
           fmt::format("{} in {} of {} places; by {:.3g} at {}", violated, broken, places, worst, at)});
  }
};

double relative(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) difference += std::pow(a[i] - b[i], 2), size += b[i] * b[i];
  return difference == 0 ? 0 : std::sqrt(difference / std::max(size, 1e-300));
}

class Values {
 public:
  Values(const Rows& rows, std::vector<Finding>& out) : rows_(rows), out_(out) {}

  bool has(const std::string& value) const { return !rows_.full(value).empty(); }

  // sum = a + b, row by row.
  void add(const std::string& sum, const std::string& a, const std::string& b, Tally& tally) const {
    const auto &x = rows_.full(a), &y = rows_.full(b);
    double worst = -1;
    for (const auto& [position, at] : rows_.full(sum)) {
      const auto p = x.find(position), q = y.find(position);
      if (p == x.end() || q == y.end()) continue;
      std::vector<double> left = rows_.row(p->second);
      const std::vector<double> right = rows_.row(q->second), whole = rows_.row(at);
      if (left.size() != whole.size() || right.size() != whole.size()) return;
      for (size_t i = 0; i < left.size(); ++i) left[i] += right[i];
      worst = std::max(worst, relative(whole, left));
    }
    if (worst >= 0) tally.take(sum, worst);
  }

  void residual() {
    Tally tally{.test = "residual"};
    for (int layer = 0;; ++layer) {
      const std::string blk = fmt::format("blk.{}.", layer);
      if (!has(blk + "attn_out") && !has(blk + "ffn_out")) break;
      const std::string in = layer > 0           ? fmt::format("blk.{}.ffn_out", layer - 1)
                             : has("inp_scaled") ? "inp_scaled"
                                                 : "token_embd";
      add(blk + "attn_out", in,
          blk + (has(blk + "post_attention_norm") ? "post_attention_norm" : "attn_output"), tally);
      add(blk + "ffn_out", blk + "attn_out",
          blk + (has(blk + "post_ffw_norm") ? "post_ffw_norm" : "ffn_down"), tally);
    }
    tally.report("the stream is the sum of its branches", "the stream is not the sum of its branches", out_);
  }

  void softmax() {
    Tally sums{.test = "softmax"}, mask{.test = "causality"};
    for (const Record& r : rows_.trace().records()) {
      if (!r.full() || r.first < 0 || !r.value.ends_with(".attn.probs") || r.heads == 0) continue;
      double worst = 0, later = 0;
      for (int64_t t = 0; t < r.tokens; ++t) {
        const std::vector<double> row = rows_.row({&r, t});
        for (int64_t h = 0; h < r.heads; ++h) {
          double sum = 0;
          for (int64_t k = 0; k < r.dim; ++k) {
            const double p = row[size_t(h * r.dim + k)];
            sum += p;
            if (k > r.first + t) later = std::max(later, std::abs(p));
          }
          worst = std::max(worst, std::abs(sum - 1));
        }
      }
      sums.take(r.value, worst), mask.take(r.value, later, 1e-6);
    }
    sums.report("every row of probabilities sums to 1", "rows of probabilities do not sum to 1", out_);
    mask.report("no probability falls on later tokens", "probability falls on later tokens", out_);
  }

  // Token 0 sees itself alone, so its heads are the values of their key-value heads. A head map may be any.
  void first_token() {
    Tally tally{.test = "first token"};
    for (int layer = 0; has(fmt::format("blk.{}.attn", layer)); ++layer) {
      const std::string value = fmt::format("blk.{}.attn", layer);
      const auto& v = rows_.full(fmt::format("blk.{}.attn_v", layer));
      const auto& a = rows_.full(value);
      if (v.count(0) == 0 || a.count(0) == 0 || rows_.trace().header().tokens.size() < 2) continue;
      const int64_t kv = std::max<int64_t>(v.at(0).record->heads, 1), dim = v.at(0).record->row_size() / kv;
      const std::vector<double> heads = rows_.row(a.at(0)), values = rows_.row(v.at(0));
      if (dim == 0 || int64_t(heads.size()) % dim != 0) continue;
      double worst = 0;
      for (size_t h = 0; h < heads.size(); h += size_t(dim)) {
        double best = INFINITY;
        for (size_t k = 0; k < values.size(); k += size_t(dim)) {
          best = std::min(best, relative({heads.begin() + int64_t(h), heads.begin() + int64_t(h) + dim},
                                         {values.begin() + int64_t(k), values.begin() + int64_t(k) + dim}));
        }
        worst = std::max(worst, best);
      }
      tally.take(value, worst, 4 * kRounding);  // a cache of 8 bits adds up to 1/128
    }
    tally.report("token 0 attends to itself alone", "token 0 sees more, or something else, than itself",
                 out_);
  }

 private:
  const Rows& rows_;
  std::vector<Finding>& out_;
};

}  // namespace

void check_values(const Rows& rows, const std::string&, std::vector<Finding>& out) {
  Values values(rows, out);
  values.residual(), values.softmax(), values.first_token();
}

void check_again(const Rows& rows, const Rows& again, std::vector<Finding>& out) {
  Tally tally{.test = "calls"};
  std::string last;
  for (const Record& r : rows.trace().records()) {
    if (!r.full() || r.name() == last) continue;
    last = r.name();
    const auto& other = again.full(last);
    double squares = 0;
    int64_t n = 0;
    for (const auto& [position, at] : rows.full(last)) {
      const auto there = other.find(position);
      if (there == other.end()) continue;
      const std::vector<double> a = rows.row(at), b = again.row(there->second);
      if (a.size() == b.size()) squares += std::pow(relative(a, b), 2), ++n;
    }
    if (n > 0) tally.take(last, std::sqrt(squares / double(n)), 0.1);
  }
  tally.report("the same tokens in other calls give the same values",
               "the same tokens in other calls give other values", out);
}

}  // namespace plumb::trace
