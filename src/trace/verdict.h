// From hypotheses with likelihoods to a verdict: what cannot be told apart, what is noise, what is unknown.
#pragma once

#include "trace/search.h"

namespace plumb::trace {

/// Log likelihood less what each further fault has to earn: there are some 250 of them.
double score(const Hypothesis& h);

/// Whether the best hypothesis, of those run on all evidence, leaves nothing unexplained. `found` is sorted.
bool is_explained(Simulator& simulator, const std::vector<Hypothesis>& found);

/// Whether the best leaves the numbers less certain, or further off, than a right engine's are: its own
/// rounding may hide that it is not alone.
bool is_rough(Simulator& s, const std::vector<Hypothesis>& found);

void judge(Simulator& simulator, std::vector<Hypothesis>& found, Diagnosis& d);

}  // namespace plumb::trace
