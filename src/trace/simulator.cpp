#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trace/search.h"

namespace plumb::trace {
namespace {

constexpr int64_t kDecodedBytes = int64_t(3) << 30, kWrongBytes = int64_t(1) << 30;
constexpr Arithmetic kEightBits = {.inputs = Rounded::q8, .cache = Rounded::f16};
constexpr Arithmetic kHalf = {.values = Rounded::bf16, .inputs = Rounded::bf16, .cache = Rounded::bf16};
// As llama.cpp runs weights in f32, and those of K formats.
constexpr Arithmetic kCache = {.cache = Rounded::f16};
constexpr Arithmetic kCoarse = {.inputs = Rounded::q8_k, .cache = Rounded::f16};

void mask(Prediction& p, const Evidence& evidence, int depth, int n_layer) {
  for (size_t g = 0; g < p.size(); ++g)
    p[g].computed = p[g].computed && within(evidence.groups[g], depth, n_layer);
}

}  // namespace

Simulator::Simulator(const DiagnoseRequest& request, const Evidence& evidence)
    : model_(request.model),
      evidence_(evidence),
      numbers_(numbers_of(evidence)),
      decoded_(kDecodedBytes),
      wrong_(kWrongBytes, &decoded_),
      everything_(Everything::behind(evidence, request.model.program())),
      cache_(request.cache, request.model.file().path(), everything_ ? everything_->evidence() : evidence),
      cancel_(request.cancel) {
  const int all = program().n_layer;
  health_.depth = all;
  health_.expected = expect(evidence_, *exact({}, all), *exact({}, all, kEightBits), nullptr);
  health_.log_likelihood = log_likelihood(evidence_, numbers_, health_.expected, health_.expected);
}

std::string Simulator::key_of(const FaultSet& faults, Arithmetic profile, int64_t ids, size_t runs) {
  std::string key =
      fmt::format("{}{}{} {} {}", int(profile.values), int(profile.inputs), int(profile.cache), ids, runs);
  for (const ChosenFault& c : faults) key += fmt::format(",{}={}", c.fault->id, c.parameter);
  return key;
}

std::optional<Prediction> Simulator::exact(const FaultSet& faults, int depth, Arithmetic profile, int64_t ids,
                                           size_t runs) {
  const std::string key = key_of(faults, profile, ids, runs);
  std::optional<Prediction> p = cache_.find(key, depth);
  if (!p) {
    if (!latest_ || latest_->key != key_of(faults, {}, 0, 0)) {
      std::optional<Variant> variant = try_vary(model_, faults);
      if (!variant) return std::nullopt;
      latest_ = {key_of(faults, {}, 0, 0), std::move(*variant)};
      wrong_.forget();
    }
    p = predict({.variant = latest_->variant,
                 .evidence = everything_ ? everything_->evidence() : evidence_,
                 .model = model_,
                 .depth = depth,
                 .ids = ids,
                 .runs = runs,
                 .profile = profile,
                 .decoded = &wrong_,
                 .cancel = cancel_},
                model_.pool());
    cache_.keep(key, depth, *p);
  }
  if (everything_) return everything_->select(evidence_, *p, depth, program().n_layer);
  mask(*p, evidence_, depth, program().n_layer);
  return p;
}

std::optional<Hypothesis> Simulator::run(const FaultSet& faults, int depth) {
  tried_.insert(key_of(faults, {}, 0, 0));
  std::optional<Prediction> a = exact(faults, depth);
  if (!a) return std::nullopt;
  std::optional<Prediction> b = exact(faults, depth, kEightBits);
  Hypothesis h{faults, expect(evidence_, std::move(*a), std::move(*b), &health()), depth, 0};
  h.log_likelihood = log_likelihood(evidence_, numbers_, h.expected, health());
  return h;
}

std::optional<Hypothesis> Simulator::glance(const FaultSet& faults, size_t runs) {
  constexpr int64_t kIds = 8;
  constexpr double kRougher = 3;  // a scrambled network amplifies rounding more than a right one
  const int all = program().n_layer;
  tried_.insert(key_of(faults, {}, 0, 0));
  std::optional<Prediction> x = evidence_.has_ids() ? exact(faults, all, {}, kIds, runs) : exact(faults, all);
  if (!x) return std::nullopt;
  Hypothesis h{faults, {*x, *x, health().scale, false}, all, 0};
  for (std::vector<double>& scale : h.expected.scale) {
    for (double& s : scale) s *= kRougher;
  }
  h.log_likelihood = log_likelihood(evidence_, numbers_, h.expected, health());
  return h;
}

Hypothesis Simulator::healthy(int depth) const {
  Hypothesis h = health_;
  h.depth = depth;
  mask(h.expected.exact, evidence_, depth, program().n_layer);
  mask(h.expected.rounded, evidence_, depth, program().n_layer);
  h.log_likelihood = log_likelihood(evidence_, numbers_, h.expected, health());
  return h;
}

std::vector<size_t> Simulator::unexplained(const Hypothesis& h) {
  const std::vector<double> theirs = misfits(evidence_, numbers_, h.expected, health());
  std::vector<double> own(theirs.size());
  const auto allow = [&](const Prediction& p) {
    const std::vector<double> m = misfits(evidence_, numbers_of(evidence_, p), h.expected, health());
    for (size_t g = 0; g < own.size(); ++g) own[g] = std::max(own[g], std::isfinite(m[g]) ? m[g] : 0);
  };
  const auto limit = [&](size_t g) {
    const Observed& o = evidence_.groups[g];
    return (has_elements(o) ? 4 : is_alone(o) ? 20 : 8) + 3 * own[g];
  };
  std::vector<size_t> out;
  const auto list = [&] {
    out.clear();
    for (size_t g = 0; g < theirs.size(); ++g) {
      if (theirs[g] > limit(g)) out.push_back(g);
    }
  };
  allow(h.expected.rounded);
  list();
  for (const Arithmetic& profile : {kHalf, kCache, kCoarse}) {
    if (out.empty()) return out;
    if (const std::optional<Prediction> p = exact(h.faults, h.depth, profile)) allow(*p);
    list();
  }
  // One of many, with all behind it as predicted: its own scale, as a fault would have consequences.
  constexpr int64_t kMany = 24;
  constexpr double kStray = 2;
  const auto seen = [](double z) { return z > 0; };
  if (out.size() == 1 && !is_alone(evidence_.groups[out[0]]) && theirs[out[0]] < kStray * limit(out[0]) &&
      std::count_if(theirs.begin(), theirs.end(), seen) > kMany &&
      std::any_of(theirs.begin() + int64_t(out[0]) + 1, theirs.end(), seen))
    out.clear();
  return out;
}

std::string Simulator::worst(const Hypothesis& h) const {
  const std::vector<double> far = misfits(evidence_, numbers_, h.expected, health());
  const auto at = std::max_element(far.begin(), far.end());
  return at == far.end() || *at == 0 ? "" : evidence_.groups[size_t(at - far.begin())].value;
}

std::vector<size_t> Simulator::doubtful(const Hypothesis& h) {
  constexpr double kVisible = 3;
  std::vector<size_t> out = unexplained(h);
  if (!out.empty()) return out;
  const std::vector<double> far = misfits(evidence_, numbers_, h.expected, health());
  for (size_t g = 0; g < far.size(); ++g) {
    if (far[g] > kVisible) out.push_back(g);
  }
  return out;
}

double Simulator::least_likelihood(const Hypothesis& h) {
  double count = 0;
  for (const Observed& o : evidence_.groups) count += o.weight * double(o.numbers.size());
  const double a = log_likelihood(evidence_, numbers_of(evidence_, h.expected.rounded), h.expected, health(),
                                  {.ids = false, .exact_only = true});
  const auto in = [&](const Arithmetic& profile, Counted counted) {
    const std::optional<Prediction> x = exact(h.faults, h.depth, profile);
    return x ? log_likelihood(evidence_, numbers_of(evidence_, *x), h.expected, health(), counted) : a;
  };
  const double b = in(kHalf, {.ids = false});
  const double least = std::min(a, b) - std::abs(a - b), chance = 3 * std::sqrt(count);
  const double own = log_likelihood(evidence_, numbers_, h.expected, health(), {.ids = false});
  if (own > least - chance) return least - chance;
  return std::min(least, in(kCoarse, {.ids = false, .exact_only = true})) - chance;
}

double Simulator::distance(const Prediction& p) const {
  double sum = 0;
  for (size_t g = 0; g < p.size(); ++g) {
    if (!p[g].computed || numbers_[g].empty()) continue;
    double part = 0;
    for (size_t i = 0; i < numbers_[g].size(); ++i) {
      const double unit = std::max({std::abs(numbers_[g][i].value), health().exact[g].size, 1e-30});
      const double d = std::abs(numbers_[g][i].value - p[g].x[i]) / unit;
      part += std::isfinite(d) ? std::log(d + 1e-5) : 3;
    }
    sum += evidence_.groups[g].weight * part;
  }
  return sum;
}

}  // namespace plumb::trace
