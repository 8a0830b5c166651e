// Which one measurement would tell the candidates of a diagnosis apart: each is run once more with everything
// watched that an engine could print.
#pragma once

#include "trace/diagnose.h"

namespace plumb::trace {

struct NextMeasurement {
  struct Says {
    FaultSet faults;
    double number = 0;
  };
  std::string value;            // as in the Program: "blk.0.q_rope"
  std::string what = {};        // what to print of it
  std::string prompt = {};      // which prompt; empty: the same
  std::string shown = {};       // the number that differs most: "rms", "element 3"
  std::vector<Says> says = {};  // what each candidate would show there
  double decides = 0;  // the share of the doubt that it ends: of pairs of candidates, by their probabilities
};

/// The cheapest first among those that decide most; empty where there is nothing to tell apart, or nothing
/// that does. Of the same prompt if that can decide at all, else of it repeated, else of steps behind it.
/// Throws Error "run.cancelled".
std::vector<NextMeasurement> next_measurements(const DiagnoseRequest& request, const Diagnosis& diagnosis);

}  // namespace plumb::trace
