// The noise floor: how far honest roundings of our own runs lie from f64, value by value.
#pragma once

#include "trace/replay.h"

namespace plumb::trace {

struct Floor {
  std::vector<std::string> profiles;
  std::map<std::string, std::vector<double>> whole, local;  // by value: error of each profile

  /// Of a value and profile, never below what the profile's own number format rounds.
  double of(const std::map<std::string, std::vector<double>>& errors, const std::string& value,
            size_t p) const;
};

/// Ours: f64 on at most kFloorTokens of the tokens, in each profile. Kept in `cache` (a folder; empty:
/// nowhere) under the model file and the tokens. Writes traces into a temporary folder.
Floor measure_floor(const Model& model, std::span<const int> tokens, const std::string& cache);

/// Without a model: what each format's rounding would do, growing with depth.
Floor assumed_floor(const std::vector<std::string>& values);

/// The error over what the floor, once set, and printing allow; above 1: too much.
double score_of(const Difference& d);

/// Judges errors in the order of the Program. Chooses the profile under which they are most likely, sets
/// floor and score of each, and returns the profile's index. A score above 1 is too much.
size_t judge(const Floor& floor, bool local, std::vector<Difference*>& differences);

}  // namespace plumb::trace
