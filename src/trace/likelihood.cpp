#include "trace/likelihood.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace plumb::trace {
namespace {

constexpr std::array kAmplitudes = {.01, .1, .3, 1., 2., 4.};  // of the foreign rounding, to ours
constexpr double kOutliers = 0.02;
constexpr double kFloat = 3e-7;        // relative: f32 sums in another order
constexpr double kImpossible = -13.8;  // log 1e-6: NaN where a number was predicted, or the reverse
constexpr double kHopeless = 1000;     // distance of such a number

// What a quantity's rounding is proportional to: extremes to themselves, the others to the size of the rows.
double unit_of(const PredictedGroup& p, size_t i, const Quantity& q) {
  const double size = std::isfinite(p.size) ? p.size : 0;
  const bool extreme = q.kind == Quantity::Kind::min || q.kind == Quantity::Kind::max;
  return std::max({size, extreme && std::isfinite(p.x[i]) ? std::abs(p.x[i]) : 0, 1e-30});
}

double relative(const PredictedGroup& a, const PredictedGroup& b, size_t i, const Quantity& q) {
  if (i >= a.x.size() || i >= b.x.size()) return NAN;
  return std::abs(a.x[i] - b.x[i]) / unit_of(a, i, q);
}

struct Mean {
  double squares = 0;
  int n = 0;
  void add(double d) {
    if (std::isfinite(d)) squares += d * d, ++n;
  }
  double get() const { return n > 0 ? squares / n : NAN; }
};

// Relative scales of one group: of its elements together, of each statistic over the neighbouring layers.
std::vector<double> scales(const Evidence& e, size_t g, const Prediction& a, const Prediction& b) {
  const Observed& o = e.groups[g];
  Mean elements, all;
  std::map<Quantity::Kind, Mean> statistics;
  for (const int other : o.near) {
    const Observed& like = e.groups[size_t(other)];
    if (!a[size_t(other)].computed || !b[size_t(other)].computed) continue;
    for (size_t i = 0; i < like.what.size(); ++i) {
      const double d = relative(a[size_t(other)], b[size_t(other)], i, like.what[i]);
      all.add(d);
      like.what[i].kind == Quantity::Kind::element ? elements.add(d) : statistics[like.what[i].kind].add(d);
    }
  }
  std::vector<double> out;
  for (size_t i = 0; i < o.what.size(); ++i) {
    const bool element = o.what[i].kind == Quantity::Kind::element;
    double s = element ? elements.get() : statistics[o.what[i].kind].get();
    if (!element) s = std::max(s, .1 * all.get());  // one statistic may agree by chance
    s = std::isfinite(s) ? std::sqrt(s) : 1;
    out.push_back(std::max(s, kFloat) * unit_of(a[g], i, o.what[i]));
  }
  return out;
}

bool alike(const Evidence& e, const Expected& a, const Expected& health) {
  int64_t near = 0, n = 0;
  for (size_t g = 0; g < e.groups.size(); ++g) {
    const PredictedGroup &x = a.exact[g], &y = health.exact[g];
    if (!x.computed || !y.computed) continue;
    for (size_t i = 0; i < e.groups[g].numbers.size(); ++i) {
      ++n;
      near += std::abs(x.x[i] - y.x[i]) < 3 * health.scale[g][i] ? 1 : 0;
    }
    for (size_t i = 0; i < std::min(x.margins.size(), y.margins.size()); ++i) {
      ++n;
      near += std::abs(x.margins[i] - y.margins[i]) < 3 * health.scale[g][0] ? 1 : 0;
    }
  }
  return n > 0 && double(near) > .9 * double(n);
}

// Of logits that were not among those printed, those that should have been: each costs what the last printed
// one being larger costs.
double cost_of_others(const PredictedGroup& p, double last, double sd) {
  double sum = 0;
  for (double x : p.others) {
    const double z = (last - x) / (1.41 * sd);
    if (std::isfinite(z)) sum -= std::log1p(std::exp(std::clamp(-1.7 * z, -50., 50.)));
  }
  return std::max(sum, -4.0);
}

// Of ids that were chosen greedily: each was the largest logit where rounding moves two of them against each
// other, or with a small probability anything.
double of_chosen(const std::vector<double>& margins, double sd) {
  constexpr double kAny = 1e-4;
  double sum = 0;
  for (double m : margins) {
    const double likely = std::isnan(m) ? 0 : .5 * std::erfc(-m / (2 * sd));
    sum += std::log((1 - kOutliers) * likely + kAny);
  }
  return sum;
}

struct Terms {
  const Evidence& e;
  const Numbers& numbers;
  const Expected& x;
  const Expected& health;
  bool ids = true;

  double deviation(size_t g, size_t i, double amplitude) const {
    const double own = amplitude * x.scale[g][i], printed = numbers[g][i].unit / 1.73;
    const double exact = kFloat * std::abs(x.exact[g].x[i]);
    return std::sqrt(own * own + printed * printed + (std::isfinite(exact) ? exact * exact : 0) + 1e-30);
  }

  // Anything at all: spread around what health says, as widely as that is large.
  double broad(size_t g, size_t i, double number, double share = 1) const {
    const double centre = health.exact[g].x[i];
    const double width = share * unit_of(health.exact[g], i, e.groups[g].what[i]);
    const double z = std::isfinite(centre) ? (number - centre) / width : 0;
    return 1 / (M_PI * width * (1 + z * z));
  }

  double one(size_t g, size_t i, const Prediction& mean, double amplitude) const {
    const double number = numbers[g][i].value, predicted = mean[g].x[i];
    if (std::isfinite(number) != std::isfinite(predicted)) return kImpossible;
    if (!std::isfinite(number)) return 0;
    const double sd = deviation(g, i, amplitude), z = (number - predicted) / sd, w = 1 + z * z / 4;
    // Student's t; with one degree of freedom where the scale itself is one sample.
    const double t =
        is_alone(e.groups[g]) ? 1 / (M_PI * sd * (1 + z * z)) : .375 / (sd * w * w * std::sqrt(w));
    return std::log((1 - kOutliers) * t + kOutliers * broad(g, i, number));
  }

  double all(const Prediction& mean, double amplitude) const {
    double sum = 0;
    for (size_t g = 0; g < e.groups.size(); ++g) {
      const size_t n = numbers[g].size();
      if (!x.exact[g].computed || !health.exact[g].computed) continue;
      double part = ids ? of_chosen(mean[g].margins, std::max(amplitude * x.scale[g][0], 1e-9)) : 0;
      if (n == 0) {
        sum += part;
        continue;
      }
      for (size_t i = 0; i < n; ++i) part += one(g, i, mean, amplitude);
      if (e.groups[g].top)
        part += cost_of_others(mean[g], numbers[g][n - 1].value, deviation(g, n - 1, amplitude));
      sum += e.groups[g].weight * part;
    }
    return sum;
  }

  double anything(size_t g, double share) const {
    double sum = 0;
    for (size_t i = 0; i < numbers[g].size(); ++i) {
      const double number = numbers[g][i].value;
      sum += std::isfinite(number) ? std::log(broad(g, i, number, share)) : std::log(.02);
    }
    return sum;
  }

  // As all(), but each group may be anything with probability 1/2.
  double all_or_anything(double amplitude) const {
    constexpr double kAnyId = -4;    // log probability of an id that tells nothing
    constexpr double kShares = 1.8;  // log of how many widths are tried
    double sum = 0;
    for (size_t g = 0; g < e.groups.size(); ++g) {
      if (!health.exact[g].computed) continue;
      for (double m : health.exact[g].margins)
        sum += std::max(kAnyId, of_chosen({m}, std::max(amplitude * x.scale[g][0], 1e-9)));
      double best = 0;
      for (size_t i = 0; i < numbers[g].size(); ++i) best += one(g, i, health.exact, amplitude);
      for (double share : {.01, .03, .1, .3, 1., 3.}) best = std::max(best, anything(g, share) - kShares);
      if (!numbers[g].empty()) sum += e.groups[g].weight * (best - .7);
    }
    return sum;
  }

  double distance(size_t g, size_t i, const Prediction& mean, double amplitude) const {
    const double number = numbers[g][i].value, predicted = mean[g].x[i];
    if (std::isfinite(number) != std::isfinite(predicted)) return kHopeless;
    return std::isfinite(number) ? std::abs(number - predicted) / deviation(g, i, amplitude) : 0;
  }

  double best_amplitude() const {
    return *std::max_element(kAmplitudes.begin(), kAmplitudes.end(),
                             [&](double a, double b) { return all(x.exact, a) < all(x.exact, b); });
  }
};

double median(std::vector<double>& v) {
  if (v.empty()) return 0;
  const auto middle = v.begin() + int64_t(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

}  // namespace

Numbers numbers_of(const Evidence& evidence) {
  Numbers n;
  for (const Observed& o : evidence.groups) n.push_back(o.numbers);
  return n;
}

Numbers numbers_of(const Evidence& evidence, const Prediction& prediction) {
  Numbers n = numbers_of(evidence);
  for (size_t g = 0; g < n.size(); ++g) {
    for (size_t i = 0; i < n[g].size(); ++i)
      n[g][i].value = prediction[g].computed ? prediction[g].x[i] : NAN;
  }
  return n;
}

Expected expect(const Evidence& evidence, Prediction exact, Prediction rounded, const Expected* health) {
  Expected x{std::move(exact), std::move(rounded), {}, false};
  x.scale.resize(evidence.groups.size());
  for (size_t g = 0; g < evidence.groups.size(); ++g) {
    if (x.exact[g].computed) x.scale[g] = scales(evidence, g, x.exact, x.rounded);
  }
  x.like_health = health && alike(evidence, x, *health);
  if (!x.like_health) return x;
  for (size_t g = 0; g < evidence.groups.size(); ++g) {
    if (x.exact[g].computed && health->exact[g].computed) x.scale[g] = health->scale[g];
  }
  return x;
}

double log_likelihood(const Evidence& evidence, const Numbers& numbers, const Expected& expected,
                      const Expected& health, Counted counted) {
  const Terms terms{evidence, numbers, expected, health, counted.ids};
  std::vector<double> logs;
  for (double amplitude : kAmplitudes) {
    logs.push_back(terms.all(expected.exact, amplitude));
    // Which way a number was rounded is chance: no foreign run is nearer to ours than that.
    if (amplitude >= .3 && !counted.exact_only) logs.push_back(terms.all(expected.rounded, amplitude));
  }
  const double most = *std::max_element(logs.begin(), logs.end());
  double sum = 0;
  for (double l : logs) sum += std::exp(l - most);
  return most + std::log(sum / double(logs.size()));
}

double outside_likelihood(const Evidence& evidence, const Numbers& numbers, const Expected& health) {
  return Terms{evidence, numbers, health, health}.all_or_anything(1);
}

std::vector<double> misfits(const Evidence& evidence, const Numbers& numbers, const Expected& expected,
                            const Expected& health) {
  const Terms terms{evidence, numbers, expected, health};
  const double amplitude = terms.best_amplitude();
  std::vector<double> out(evidence.groups.size());
  for (size_t g = 0; g < out.size(); ++g) {
    if (!expected.exact[g].computed || numbers[g].empty()) continue;
    std::vector<double> z;
    for (size_t i = 0; i < numbers[g].size(); ++i)
      z.push_back(terms.distance(g, i, expected.exact, amplitude));
    out[g] = median(z);
  }
  return out;
}

double effect(const Evidence& evidence, const Numbers& numbers, const Expected& expected,
              const Expected& health) {
  const double amplitude = Terms{evidence, numbers, expected, health}.best_amplitude();
  const Numbers as_predicted = numbers_of(evidence, expected.exact);
  const Terms terms{evidence, as_predicted, health, health};
  double most = 0;
  for (size_t g = 0; g < evidence.groups.size(); ++g) {
    if (!expected.exact[g].computed || numbers[g].empty()) continue;
    std::vector<double> z;
    for (size_t i = 0; i < numbers[g].size(); ++i) z.push_back(terms.distance(g, i, health.exact, amplitude));
    most = std::max(most, median(z));
  }
  return most;
}

}  // namespace plumb::trace
