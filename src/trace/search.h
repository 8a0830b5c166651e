// The search of diagnose(): hypotheses, run as deep as they are worth, and sets of them.
#pragma once

#include <set>

#include "trace/diagnose.h"
#include "trace/everything.h"
#include "trace/likelihood.h"
#include "trace/prediction_cache.h"

namespace plumb::trace {

struct Hypothesis {
  FaultSet faults;
  Expected expected;
  int depth = 0;
  double log_likelihood = 0;
  bool control() const { return !faults.empty() && faults[0].fault->control; }
};

/// Runs hypotheses against one body of evidence.
class Simulator {
 public:
  Simulator(const DiagnoseRequest& request, const Evidence& evidence);

  /// None where the model cannot have the faults together.
  std::optional<Hypothesis> run(const FaultSet& faults, int depth);
  /// In f32 alone, unless `profile` says otherwise.
  std::optional<Prediction> exact(const FaultSet& faults, int depth, Arithmetic profile = {},
                                  int64_t ids = INT64_MAX, size_t runs = SIZE_MAX);
  /// A first look at all layers: in f32, with the rounding of health; where ids were generated, on the first
  /// few of them in the first runs.
  std::optional<Hypothesis> glance(const FaultSet& faults, size_t runs);
  /// No fault, with the groups up to that layer.
  Hypothesis healthy(int depth) const;

  const Evidence& evidence() const { return evidence_; }
  const Numbers& numbers() const { return numbers_; }
  const Expected& health() const { return health_.expected; }
  const Program& program() const { return model_.program(); }
  const Model& model() const { return model_; }
  int64_t tried() const { return int64_t(tried_.size()); }
  void save() { cache_.save(); }

  /// Groups, in order, that the hypothesis does not explain even though its own rounding, in other
  /// arithmetics as well, is allowed for.
  std::vector<size_t> unexplained(const Hypothesis& h);

  /// The value whose numbers contradict it most.
  std::string worst(const Hypothesis& h) const;

  /// Those, or where there is none the groups that lie outside its own rounding at all.
  std::vector<size_t> doubtful(const Hypothesis& h);

  /// What the hypothesis would score on its own numbers in other arithmetics, less what chance may take:
  /// below that something else is at work.
  double least_likelihood(const Hypothesis& h);

  /// Of a prediction in f32: small where it is near the numbers, whatever its rounding.
  double distance(const Prediction& p) const;

 private:
  struct Latest {
    std::string key;
    Variant variant;
  };

  static std::string key_of(const FaultSet& faults, Arithmetic profile, int64_t ids, size_t runs);

  const Model& model_;
  const Evidence& evidence_;
  Numbers numbers_;
  DecodedWeights decoded_, wrong_;  // what a hypothesis reads in the place of the file's weights
  std::optional<Everything> everything_;
  PredictionCache cache_;
  std::optional<Latest> latest_;  // the hypothesis that was run last, often twice
  std::atomic<bool>* cancel_;
  Hypothesis health_;
  std::set<std::string> tried_;  // sets of faults, by key
};

/// "F1 I1b ": the same for all parameters.
std::string ids_of(const FaultSet& faults);

/// Whether further faults may be added to it, or it to others: no healthy engine's arithmetic, and no lost
/// precision, which moves everything a little, so that with it anything could be explained.
bool may_have_company(const FaultSet& faults);

/// Nothing from before the output, so that no beginning tells what is right that far.
bool shows_output_alone(const Evidence& evidence);

/// Layers up to which hypotheses are run, one after the other, each for those that the last one left.
std::vector<int> depths_of(const Evidence& evidence, int n_layer);

/// All single faults that the model can have and that may show in the evidence, with the parameters of their
/// grids.
std::vector<FaultSet> single_faults(const Model& model, const Evidence& evidence);

/// Not one of the points between that fit_parameter() looks at.
bool of_the_wild(const ChosenFault& c);

/// The parameter of the last fault of the set that brings the predictions nearest to the numbers.
std::optional<FaultSet> fit_parameter(Simulator& simulator, const FaultSet& faults, int depth);

/// Where the fault that a base lacks is looked for: between the last value that the base explains and the
/// first that it does not, or anywhere in that layer before it, since values in between may hide it.
enum class Reach { gap, layer };

/// Sets with one fault more, for the places that the bases leave unexplained; the best bases come first.
std::vector<Hypothesis> extend(Simulator& simulator, const std::vector<Hypothesis>& bases, int depth,
                               Reach reach, const Progress& progress);

/// Pairs where only the output was seen, and no beginning tells what is right that far: of the single faults
/// whose predictions come nearest to the numbers, each with every other. Which two it may be cannot be told
/// from what each does alone: a network is not additive (docs/diagnose.md).
std::vector<Hypothesis> pair_up(Simulator& simulator, const std::vector<Hypothesis>& bases, int depth,
                                const Progress& progress);

}  // namespace plumb::trace
