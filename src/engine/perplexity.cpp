#include "engine/perplexity.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace plumb {
namespace {

constexpr int kParts = 16;  // of a row, whatever the number of threads

// The sum over i of f(i), in kParts parts that threads share, added in order.
template <class F>
double sum_in_parts(Pool& pool, size_t n, const F& f) {
  std::array<double, kParts> part{};
  pool.each(kParts, [&](int k) {
    double sum = 0;
    for (size_t i = n * size_t(k) / kParts, end = n * size_t(k + 1) / kParts; i < end; ++i) sum += f(i);
    part[size_t(k)] = sum;
  });
  double sum = 0;
  for (double p : part) sum += p;
  return sum;
}

}  // namespace

std::vector<std::vector<int>> cut_text(std::span<const int> tokens, int n_ctx, int most) {
  const size_t whole = tokens.size() / size_t(n_ctx);
  const size_t least = most == 1 ? 1 : 2;
  if (whole < least) {
    throw Error(
        {.code = "text.short",
         .expected = fmt::format("at least {} tokens, {} chunks of {}", least * size_t(n_ctx), least, n_ctx),
         .found = std::to_string(tokens.size()),
         .remedy = "take a longer text, or shorter chunks with -c"});
  }
  std::vector<std::vector<int>> chunks(most < 0 ? whole : std::min(whole, size_t(most)));
  for (size_t i = 0; i < chunks.size(); ++i) {
    const auto from = tokens.begin() + int64_t(i) * n_ctx;
    chunks[i].assign(from, from + n_ctx);
  }
  return chunks;
}

void score_chunk(const Model& model, const RunnerOptions& options, std::span<const int> chunk, int bos,
                 const Runner::See& see) {
  std::vector<int> ids(chunk.begin(), chunk.end() - 1);  // nothing is asked of the last
  if (bos >= 0) ids[0] = bos;
  const size_t first = size_t(first_scored(int(chunk.size())));
  const auto runner = Runner::make(model, options);
  runner->decode(std::span(ids).first(first));
  runner->observe(std::span(ids).subspan(first), model.program().output, true, see);
}

double log_sum_exp(Pool& pool, std::span<const double> x) {
  const double largest = *std::max_element(x.begin(), x.end());
  return largest + std::log(sum_in_parts(pool, x.size(), [&](size_t i) { return std::exp(x[i] - largest); }));
}

double Mean::error() const {
  return count_ < 2 ? 0 : std::sqrt(squares_ / double(count_ - 1) / double(count_));
}

void Divergence::add(Pool& pool, std::span<const double> base, std::span<const double> run, int token) {
  const double d =
      sum_in_parts(pool, base.size(), [&](size_t i) { return std::exp(base[i]) * (base[i] - run[i]); });
  divergence_.add(d), each_.push_back(d), sorted_ = false;
  const double p = base[size_t(token)], q = run[size_t(token)], moved = std::exp(q) - std::exp(p);
  base_loss_.add(-p), loss_.add(-q), difference_.add(p - q), moved_squared_.add(moved * moved);
  const auto top = [](std::span<const double> x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
  same_top_.add(top(base) == top(run));
}

double Divergence::percentile(double share) const {
  PLUMB_CHECK(!each_.empty());
  if (!sorted_) std::sort(each_.begin(), each_.end()), sorted_ = true;
  const double at = share * double(each_.size() - 1);
  const size_t below = size_t(at), above = std::min(below + 1, each_.size() - 1);
  return each_[below] + (at - double(below)) * (each_[above] - each_[below]);
}

}  // namespace plumb
