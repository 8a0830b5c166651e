// Names the bug: runs the catalogue on our own forward pass until a fault reproduces foreign numbers
// (docs/diagnose.md).
#pragma once

#include "engine/model.h"
#include "trace/faults.h"
#include "trace/observe.h"

namespace plumb::trace {

using FaultSet = std::vector<ChosenFault>;  // empty: no fault

/// "F1-rope-style", "D1-eps (eps 1e-06)", joined by " and "; "no fault".
std::string describe(const FaultSet& faults);

struct Candidate {
  FaultSet faults;
  double log_likelihood = 0, p = 0;
  std::vector<FaultSet> same;  // others that this evidence cannot tell from it
  bool control = false;        // no fault, by another arithmetic
};

/// A foreign number beside what the best candidate says.
struct Reproduced {
  std::string value, what;  // "rms", "element 12"
  double foreign = 0, predicted = 0, right = 0;
  bool agrees = false;
  double score = 0, right_score = 0;  // distances from both, of what rounding may do: above 1 contradicts
};

/// A fault that was run and dropped.
struct Excluded {
  FaultSet faults;
  double nats = 0;      // that it was behind the best, of those run as deep
  int depth = 0;        // the last layer that it was run to; n_layer: all
  std::string against;  // the value whose numbers it misses most
};

struct Diagnosis {
  enum class Verdict { consistent, named, unknown, unusable };

  Verdict verdict = Verdict::unusable;
  std::string reason;                 // of unusable
  std::string first;                  // the first value that no fault does not explain; empty: none
  std::vector<Candidate> candidates;  // best first
  double p_outside = 0;               // that it is no fault of the catalogue
  std::vector<Reproduced> numbers;    // all, under the best candidate
  int64_t agreeing = 0;
  std::vector<Excluded> excluded;  // each fault once, the closest first; not of full traces
  int64_t tried = 0;               // hypotheses that were run
  bool complete = true;            // false: interrupted
  bool weak = false;               // logits or ids alone: "nearest known fault", never more
  std::string suspect;             // a value that contradicts the best candidate; empty: none
  double seconds = 0;
};

struct DiagnoseRequest {
  std::vector<const Trace*> theirs;  // runs of one engine
  const Model& model;
  std::string cache = {};  // folder of noise floors and predictions
  int max_faults = 3;
  std::atomic<bool>* cancel = nullptr;
  Progress progress = {};
};

Diagnosis diagnose(const DiagnoseRequest& request);

}  // namespace plumb::trace
