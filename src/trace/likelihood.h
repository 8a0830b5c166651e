// How well a hypothesis explains foreign numbers. Each hypothesis is run in two arithmetics; what lies
// between them is how far honest rounding moves its own numbers, which differs from fault to fault: a
// scrambled network amplifies rounding as a right one does not. docs/diagnose.md derives the choices.
#pragma once

#include "trace/predict.h"

namespace plumb::trace {

/// A hypothesis' numbers: in f32, with 8-bit activations, and the standard deviation of its rounding.
struct Expected {
  Prediction exact, rounded;
  std::vector<std::vector<double>> scale;  // by group and quantity
  bool like_health = false;                // predicts the same as no fault, within rounding
};

/// With `health` known, a hypothesis that predicts the same shares its scale, lest chance decide.
Expected expect(const Evidence& evidence, Prediction exact, Prediction rounded, const Expected* health);

/// What is compared: foreign numbers, or those of a run of ours in their place.
using Numbers = std::vector<std::vector<Number>>;  // by group
Numbers numbers_of(const Evidence& evidence);
Numbers numbers_of(const Evidence& evidence, const Prediction& prediction);

/// What counts: `ids` that were generated, which only foreign numbers go with; predictions in `exact` f32
/// alone, for numbers that are the rounded ones.
struct Counted {
  bool ids = true, exact_only = false;
};

/// Log likelihood of the numbers of groups that were computed. Each is Student's t with 4 degrees of freedom
/// around the prediction, or with probability 0.02 anything; the amplitude of the foreign rounding is summed
/// over.
double log_likelihood(const Evidence& evidence, const Numbers& numbers, const Expected& expected,
                      const Expected& health, Counted counted = {});

/// The same for a fault outside the catalogue: each group is either as health predicts, or anything.
double outside_likelihood(const Evidence& evidence, const Numbers& numbers, const Expected& health);

/// How far off a group's numbers are, as the median of their distances in units of rounding at the amplitude
/// under which the hypothesis does best: shows a wrong part that a sum over thousands of right ones hides.
/// Groups that were not computed have 0.
std::vector<double> misfits(const Evidence& evidence, const Numbers& numbers, const Expected& expected,
                            const Expected& health);

/// The largest such distance between what the hypothesis and health predict: below about 3 nobody could see
/// the fault.
double effect(const Evidence& evidence, const Numbers& numbers, const Expected& expected,
              const Expected& health);

}  // namespace plumb::trace
