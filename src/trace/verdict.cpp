#include "trace/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace plumb::trace {
namespace {

constexpr double kPerFault = 5.5;  // nats that each further fault has to earn
constexpr double kFitted = 4;  // and each parameter found between the known values: one in fifty of its range
constexpr double kSame = 2;    // nats: what cannot be told apart
constexpr double kIdsMargin = 6;       // nats that generated ids must say more for a fault than for none
constexpr double kVisible = 3;         // effects below so many deviations are nobody's finding
constexpr size_t kCandidates = 10;     // that are told
constexpr size_t kCompared = 40;       // hypotheses that are put into classes
constexpr double kHealthPrior = -3.0;  // log probabilities, of 1 for all faults together
constexpr double kOutside = 0.05;
constexpr double kClear = 10;  // nats by which a named fault beats one outside the catalogue

double cost_of_parameters(const FaultSet& faults) {
  return kFitted * double(std::count_if(faults.begin(), faults.end(),
                                        [](const ChosenFault& c) { return !of_the_wild(c); }));
}

// Log probability before any number is known, of 1 for all single faults together.
double prior(const FaultSet& faults) {
  return faults.empty() ? kHealthPrior : -kPerFault * double(faults.size()) - cost_of_parameters(faults);
}

// What a hypothesis makes of numbers, ids apart.
double of_numbers(Simulator& s, const Numbers& numbers, const Hypothesis& h) {
  return log_likelihood(s.evidence(), numbers, h.expected, s.health(), {.ids = false});
}

// The most that a fault whose parameter was fitted may gain on numbers that it has nothing to do with: near
// health, its predictions move along a line as the parameter does, and one point of that line fits best.
double fitted(Simulator& s, const Hypothesis& h, const Numbers& numbers) {
  const Expected& health = s.health();
  double most = -INFINITY;
  for (const double along : {-4., -2., -1.4, -1., -.7, -.5, -.35, -.25, -.15, -.1, -.05,
                             .05, .1,  .15,  .25, .35, .5,  .7,   1.,   1.4,  2.,  4.}) {
    Expected x = h.expected;
    const auto move = [&](Prediction& p, const Prediction& from) {
      for (size_t g = 0; g < p.size(); ++g) {
        for (size_t i = 0; i < p[g].x.size() && p[g].computed && from[g].computed; ++i)
          p[g].x[i] = from[g].x[i] + along * (p[g].x[i] - from[g].x[i]);
      }
    };
    move(x.exact, health.exact), move(x.rounded, health.rounded);
    most = std::max(most, log_likelihood(s.evidence(), numbers, x, health, {.ids = false}));
  }
  return most;
}

constexpr Arithmetic kProfiles[] = {
    {.values = Rounded::bf16, .inputs = Rounded::bf16, .cache = Rounded::bf16},
    {.values = Rounded::f16, .inputs = Rounded::f16, .cache = Rounded::f16},
    {.inputs = Rounded::q8}};

// What no fault may lose against the best fault on healthy numbers in other arithmetics: their rounding is
// correlated, and chance finds some fault to match it.
double margin_of(Simulator& s, const std::vector<Hypothesis>& found) {
  const Hypothesis health = s.healthy(found[0].depth);
  double most = 0;
  for (const Arithmetic& profile : kProfiles) {
    const std::optional<Prediction> x = s.exact({}, health.depth, profile);
    if (!x) continue;
    const Numbers numbers = numbers_of(s.evidence(), *x);
    const double own = of_numbers(s, numbers, health);
    const bool was_fitted = found[0].faults.size() == 1 && !of_the_wild(found[0].faults[0]);
    if (was_fitted) most = std::max(most, fitted(s, found[0], numbers) - own);
    for (size_t i = 0; i < std::min(found.size(), kCompared); ++i) {
      if (found[i].control()) continue;
      most = std::max(most, of_numbers(s, numbers, found[i]) - own);
    }
  }
  return (s.evidence().has_ids() ? kIdsMargin : kSame) + 3 * most;
}

bool adds_one(const FaultSet& more, const FaultSet& base) {
  return more.size() == base.size() + 1 &&
         std::equal(base.begin(), base.end(), more.begin(), [](const ChosenFault& a, const ChosenFault& b) {
           return a.fault == b.fault && a.parameter == b.parameter;
         });
}

// Not where values leave the range of f16.
bool as_finite(const Prediction& a, const Prediction& b) {
  for (size_t g = 0; g < a.size(); ++g) {
    for (size_t i = 0; i < a[g].x.size() && b[g].computed; ++i) {
      if (std::isfinite(a[g].x[i]) != std::isfinite(b[g].x[i])) return false;
    }
  }
  return true;
}

// The same for a further fault: what one of those tried gains on the numbers of the base in other
// arithmetics.
double margin_beside(Simulator& s, const Hypothesis& base, const std::vector<Hypothesis>& found) {
  double most = 0;
  for (const Arithmetic& profile : kProfiles) {
    const std::optional<Prediction> x = s.exact(base.faults, base.depth, profile);
    if (!x || !as_finite(*x, base.expected.exact)) continue;
    const Numbers numbers = numbers_of(s.evidence(), *x);
    const double own = of_numbers(s, numbers, base);
    for (const Hypothesis& h : found) {
      if (!adds_one(h.faults, base.faults)) continue;
      most = std::max(most, of_numbers(s, numbers, h) - own);
    }
  }
  return kSame + 3 * most;
}

// Whether the last fault of the best set may be a match for its base's rounding: a network that is scrambled
// rounds by more than our profiles do, and faults that move little are as good as further roundings.
bool is_chance(Simulator& s, const Hypothesis& base, const std::vector<Hypothesis>& found) {
  constexpr double kBeyond = 10;  // times what is visible: no rounding
  const double moved = effect(s.evidence(), s.numbers(), found[0].expected, base.expected);
  return moved < kVisible ||
         (moved < kBeyond * kVisible && score(found[0]) - score(base) < margin_beside(s, base, found));
}

// Takes faults off the best set that chance may have added.
void drop_company(Simulator& s, std::vector<Hypothesis>& found) {
  while (found[0].faults.size() > 1) {
    const auto base = std::find_if(found.begin(), found.end(), [&](const Hypothesis& h) {
      return h.depth == found[0].depth && adds_one(found[0].faults, h.faults);
    });
    if (base == found.end() || !is_chance(s, *base, found)) return;
    const double best = found[0].log_likelihood;
    std::rotate(found.begin(), base, base + 1);
    found[0].log_likelihood = std::max(found[0].log_likelihood, best);
  }
}

// Nats that b loses against a on what a predicts.
double loss(Simulator& s, const Hypothesis& a, const Hypothesis& b) {
  const Numbers numbers = numbers_of(s.evidence(), a.expected.exact);
  return of_numbers(s, numbers, a) - of_numbers(s, numbers, b);
}

// Where there are ids, what they say of the two must be the same; it is known of these ids alone.
bool same(Simulator& s, const Hypothesis& a, const Hypothesis& b) {
  const double apart = std::abs(a.log_likelihood - b.log_likelihood);
  return apart < (s.evidence().has_ids() ? kSame : 10 * kSame) && loss(s, a, b) < kSame &&
         loss(s, b, a) < kSame;
}

void list_candidates(Simulator& s, const std::vector<Hypothesis>& found, Diagnosis& d) {
  std::vector<const Hypothesis*> heads;
  for (size_t i = 0; i < std::min(found.size(), kCompared); ++i) {
    const Hypothesis& h = found[i];
    const auto like =
        std::find_if(heads.begin(), heads.end(), [&](const Hypothesis* o) { return same(s, *o, h); });
    if (like != heads.end()) {
      d.candidates[size_t(like - heads.begin())].same.push_back(h.faults);
    } else if (heads.size() < kCandidates) {
      heads.push_back(&h);
      d.candidates.push_back({h.faults, h.log_likelihood, 0, {}, h.control()});
    }
  }
}

// Weighs the candidates against each other and against a fault that the catalogue lacks.
void set_probabilities(double outside, bool explained, Diagnosis& d) {
  const auto weight = [](const Candidate& c) { return c.log_likelihood + prior(c.faults); };
  outside += std::log(kOutside) - kPerFault;
  double most = outside;
  for (const Candidate& c : d.candidates) most = std::max(most, weight(c));
  double sum = std::exp(outside - most);
  for (const Candidate& c : d.candidates) sum += std::exp(weight(c) - most);
  d.p_outside = std::max(std::exp(outside - most) / sum, explained ? .02 : .9);
  const double rest = sum - std::exp(outside - most);
  for (Candidate& c : d.candidates)
    c.p = rest > 0 ? (1 - d.p_outside) * std::exp(weight(c) - most) / rest : 0;
}

const char* name(Quantity::Kind kind) {
  static constexpr const char* kNames[] = {"element", "rms", "mean", "min", "max"};
  return kNames[int(kind)];
}

// How far off a number is, of what rounding and printing may do.
double score_of(const Number& n, const Expected& e, size_t g, size_t i) {
  const double x = e.exact[g].x[i];
  if (!std::isfinite(n.value)) return std::isfinite(x) ? INFINITY : 0;
  return std::isfinite(x) ? std::abs(n.value - x) / (4 * e.scale[g][i] + 2 * n.unit) : INFINITY;
}

void list_numbers(Simulator& s, const Hypothesis& best, Diagnosis& d) {
  const std::vector<Observed>& groups = s.evidence().groups;
  for (size_t g = 0; g < groups.size(); ++g) {
    if (!best.expected.exact[g].computed) continue;
    for (size_t i = 0; i < groups[g].numbers.size(); ++i) {
      const Number& n = groups[g].numbers[i];
      const double x = best.expected.exact[g].x[i];
      const double score = score_of(n, best.expected, g, i);
      std::string what = name(groups[g].what[i].kind);
      if (groups[g].what[i].kind == Quantity::Kind::element)
        what += fmt::format(" {}", groups[g].what[i].index);
      d.numbers.push_back({groups[g].value, std::move(what), n.value, x, s.health().exact[g].x[i], score <= 1,
                           score, score_of(n, s.health(), g, i)});
      d.agreeing += score <= 1 ? 1 : 0;
    }
  }
}

void put_first(std::vector<Hypothesis>& found, bool (*is)(const Hypothesis&)) {
  const auto at = std::find_if(found.begin(), found.end(), is);
  if (at != found.end()) std::rotate(found.begin(), at, at + 1);
}

// Logits or generated ids alone.
bool is_weak(const Evidence& e) {
  return std::all_of(e.groups.begin(), e.groups.end(),
                     [](const Observed& o) { return o.numbers.empty() || o.value == "logits"; });
}

bool is_health(const Hypothesis& h) { return h.faults.empty(); }

}  // namespace

double score(const Hypothesis& h) {
  return h.log_likelihood - kPerFault * double(h.faults.empty() ? 0 : h.faults.size() - 1) -
         cost_of_parameters(h.faults);
}

bool is_explained(Simulator& s, const std::vector<Hypothesis>& found) {
  if (found.empty()) return true;
  const double outside = outside_likelihood(s.evidence(), s.numbers(), s.health());
  const double clear = found[0].faults.empty() ? std::log(kOutside) - kPerFault - kHealthPrior
                       : is_weak(s.evidence()) ? kClear / 3
                                               : kClear;
  const double numbers = of_numbers(s, s.numbers(), found[0]);
  return score(found[0]) > outside + clear && numbers > s.least_likelihood(found[0]) &&
         s.unexplained(found[0]).empty();
}

bool is_rough(Simulator& s, const std::vector<Hypothesis>& found) {
  constexpr double kRough = 6;  // nats, about what a second fault has to earn
  const Expected& health = s.health();
  const double best = of_numbers(s, s.numbers(), found[0]);
  const double usual = log_likelihood(s.evidence(), numbers_of(s.evidence(), health.rounded), health, health,
                                      {.ids = false, .exact_only = true});
  return best < usual - kRough;
}

void judge(Simulator& s, std::vector<Hypothesis>& found, Diagnosis& d) {
  drop_company(s, found);
  const Hypothesis health = s.healthy(found[0].depth);
  const bool near = health.log_likelihood + prior({}) >
                    found[0].log_likelihood + prior(found[0].faults) - margin_of(s, found);
  const bool invisible = !found[0].faults.empty() && !s.evidence().has_ids() &&
                         effect(s.evidence(), s.numbers(), found[0].expected, s.health()) < kVisible;
  if (near || invisible) {
    const double best = found[0].log_likelihood;
    put_first(found, is_health);
    found[0].log_likelihood = std::max(found[0].log_likelihood, best);
  }
  list_candidates(s, found, d);
  const bool explained = is_explained(s, found);
  const std::vector<size_t> bad = s.unexplained(found[0]);
  if (!bad.empty()) d.suspect = s.evidence().groups[bad[0]].value;
  set_probabilities(outside_likelihood(s.evidence(), s.numbers(), s.health()), explained, d);
  list_numbers(s, found[0], d);
  d.weak = is_weak(s.evidence());
  d.verdict = !explained                                  ? Diagnosis::Verdict::unknown
              : is_health(found[0]) || found[0].control() ? Diagnosis::Verdict::consistent
                                                          : Diagnosis::Verdict::named;
  if (d.first.empty() && d.verdict != Diagnosis::Verdict::consistent) {
    const std::vector<size_t> where = s.doubtful(health);
    if (!where.empty()) d.first = s.evidence().groups[where[0]].value;
  }
}

}  // namespace plumb::trace
