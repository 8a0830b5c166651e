// Cosines and sines of rotary positions in f64 by our own code, so that no library's rounding shows in the
// bits.
#pragma once

#include <vector>

#include "program/program.h"

namespace plumb {

/// A rope's angle per position of each pair, [dims / 2], and the factor on cosine and sine.
struct RopeFrequencies {
  std::vector<double> angle;
  double magnitude;
};

/// `factors` [dims / 2] may be null. Formulas and sources: program/ops.h, rope_turn.
RopeFrequencies rope_frequencies(const Rope& rope, const float* factors);

/// Writes cosine[i] and sine[i], i < dims / 2, of position pos, rounded once to f32.
void rope_row(const RopeFrequencies& rope, int pos, float* cosine, float* sine);

}  // namespace plumb
