#include "engine/embedding.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace plumb {

Embedding::Embedding(const Model& model, const RunnerOptions& options, std::vector<int> ids, Pooling pooling)
    : ids_(std::move(ids)),
      pooling_(pooling),
      value_(model.program().find("output_norm")),
      runner_(Runner::make(model, options)),
      sum_(size_t(model.program().shape(value_).size())) {
  PLUMB_CHECK(!ids_.empty());
  check_tokens(model, ids_, 0, runner_->n_ctx());
}

bool Embedding::read(int n) {
  const size_t from = size_t(runner_->length()), count = std::min(ids_.size() - from, size_t(n));
  const auto add = [this](int64_t, std::span<const double> row) {
    for (size_t i = 0; i < row.size(); ++i) sum_[i] += row[i];
  };
  const bool last = from + count == ids_.size();
  const std::span<const int> piece = std::span(ids_).subspan(from, count);
  const bool all = pooling_ == Pooling::mean;
  runner_->observe(
      piece, value_, all, all || last ? Runner::See(add) : [](int64_t, std::span<const double>) {});
  return last;
}

std::vector<float> Embedding::vector() const {
  double squares = 0;
  for (double x : sum_) squares += x * x;
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  std::vector<float> out;
  for (double x : sum_) out.push_back(float(x * scale));
  return out;
}

}  // namespace plumb
