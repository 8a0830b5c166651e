#include "trace/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "trace/inner.h"

namespace plumb::trace {
namespace {

// Floats lie on a line of integers: how many steps from a to b.
double ulps_between(double a, double b) {
  const auto place = [](float x) {
    const int32_t bits = std::bit_cast<int32_t>(x);
    return int64_t(bits < 0 ? INT32_MIN - int64_t(bits) : bits);
  };
  return std::abs(double(place(float(a)) - place(float(b))));
}

double relative_square(double difference, double ours, size_t elements) {
  return difference / std::max(ours, kNothing * kNothing * double(elements));
}

}  // namespace

Rows::Rows(const Trace& trace) : trace_(trace) {
  for (const Record& r : trace.records()) {
    if (!r.full() || r.first < 0) {
      summaries_[r.name()].push_back(&r);
      continue;
    }
    Positions& rows = full_[r.name()];
    for (int64_t t = 0; t < r.tokens; ++t) rows.append(r.first + t, At{&r, t});
  }
  for (auto& [name, rows] : full_) {
    int64_t wrong = rows.settle();
    if (rows.empty() || rows.first().second.record->value.empty())
      continue;  // nodes without a name of ours may repeat
    for (const auto& [position, at] : rows) {
      const bool other_size = at.record->dim != rows.first().second.record->dim && !is_by_key(name);
      if (wrong < 0 && other_size) wrong = position;
    }
    if (wrong < 0) continue;
    throw Error({.code = "trace.overlap",
                 .expected = "each position once, all of one size",
                 .found = fmt::format("position {} again, or of another size", wrong),
                 .where = {.file = trace.path(), .tensor = printable(name)}});
  }
}

std::vector<double> Rows::row(const At& at) const {
  std::vector<double> all = trace_.rows(*at.record, at.row, 1);
  if (at.length == 0) return all;
  if (at.piece == 0) return {all.begin() + at.offset, all.begin() + at.offset + at.length};
  std::vector<double> out;
  for (int64_t from = at.offset; int64_t(out.size()) < at.length; from += at.period)
    out.insert(out.end(), all.begin() + from, all.begin() + from + at.piece);
  return out;
}

void Rows::split(const std::string& fused, const std::vector<Part>& parts) {
  const auto from = full_.find(fused);
  if (from == full_.end()) return;
  int64_t size = 0;
  for (const Part& part : parts) {
    if (full_.count(part.value) > 0) return;
    size += part.length;
  }
  if (from->second.empty() || from->second.begin()->second.size() != size) return;
  const Positions rows = from->second;
  for (const Part& part : parts) {
    for (const auto& [position, at] : rows)
      full_[part.value].append(position,
                               At{at.record, at.row, part.offset, part.length, part.piece, part.period});
  }
}

const Rows::Positions& Rows::full(const std::string& value) const {
  static const Positions kNone;
  const auto at = full_.find(value);
  return at == full_.end() ? kNone : at->second;
}

const std::vector<const Record*>& Rows::summaries(const std::string& value) const {
  static const std::vector<const Record*> kNone;
  const auto at = summaries_.find(value);
  return at == summaries_.end() ? kNone : at->second;
}

Comparison::Comparison(std::string value, int64_t heads) {
  d_.value = std::move(value), d_.from = "full";
  head_difference_.resize(size_t(std::max<int64_t>(heads, 1)));
  head_ours_ = head_difference_;
}

void Comparison::add(int64_t position, std::span<const double> theirs, std::span<const double> ours) {
  PLUMB_CHECK(theirs.size() == ours.size());
  const size_t dim = ours.size() / head_ours_.size();
  double difference = 0, size = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    const double a = theirs[i], b = ours[i];
    if (!std::isfinite(a) || !std::isfinite(b)) {
      if (std::isfinite(a) != std::isfinite(b)) d_.finite = false;
      continue;
    }
    const double delta = a - b;
    difference += delta * delta, size += b * b;
    dot_ += a * b, theirs_ += a * a;
    head_difference_[i / dim] += delta * delta, head_ours_[i / dim] += b * b;
    if (std::abs(delta) > largest_) {
      largest_ = std::abs(delta);
      d_.token = position, d_.index = int64_t(i), d_.theirs = a, d_.ours = b;
    }
  }
  ours_ += size;
  const double ratio = relative_square(difference, size, ours.size());
  squares_ += ratio;
  d_.by_token.emplace_back(position, std::sqrt(ratio));
  ++d_.tokens, d_.elements += int64_t(ours.size());
}

Difference Comparison::result() const {
  Difference d = d_;
  if (d.tokens > 0) d.error = std::sqrt(squares_ / double(d.tokens));
  if (theirs_ > 0 && ours_ > 0) d.cosine = dot_ / std::sqrt(theirs_ * ours_), d.scale = dot_ / theirs_;
  if (!d.finite) d.error = INFINITY;
  d.ulps = ulps_between(d.theirs, d.ours);
  for (size_t h = 0; head_ours_.size() > 1 && h < head_ours_.size(); ++h)
    d.by_head.push_back(std::sqrt(relative_square(head_difference_[h], head_ours_[h], 1)));
  return d;
}

}  // namespace plumb::trace
