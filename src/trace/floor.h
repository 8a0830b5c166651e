// The noise floor: how far honest roundings of our own runs lie from f64, value by value.
#pragma once

#include "trace/replay.h"

namespace plumb::trace {

struct Floor {
  std::vector<std::string> profiles;
  std::map<std::string, std::vector<double>> whole, local;  // by value: error of each profile
  /// By value: the errors of its statistics over that of its elements, [kStats]. A rms is known much better
  /// than an element, an extreme is one.
  std::map<std::string, std::vector<double>> shares;

  /// Of a value and profile, never below what the profile's own number format rounds.
  double of(const std::map<std::string, std::vector<double>>& errors, const std::string& value,
            size_t p) const;
  /// Of a part of a summary.
  double of(const std::string& value, const StatError& part, size_t p) const;
};

/// Ours: f64 on at most kFloorTokens of the tokens, in each profile. Kept in `cache` (a folder; empty:
/// nowhere) under the model file and the tokens. Writes traces into a temporary folder. Error "run.cancelled"
/// once `cancel` says so.
Floor measure_floor(const Model& model, std::span<const int> tokens, const std::string& cache,
                    std::atomic<bool>* cancel = nullptr);

/// Without a model: what each format's rounding would do, growing with depth.
Floor assumed_floor(const std::vector<std::string>& values);

/// The error over what the floor, once set, and printing allow; above 1: too much.
double score_of(const Difference& d);

/// Judges errors in the order of the Program. Chooses the profile under which they are most likely, sets
/// floor and score of each, and returns the profile's index. A score above 1 is too much.
size_t judge(const Floor& floor, bool local, std::vector<Difference*>& differences);

/// The index of the first value that is too much, or -1. Where only summaries are known the fault may lie
/// before it, in values that are too much only together: the change point of what noise explains.
int first_excess(const std::vector<Difference>& differences);

}  // namespace plumb::trace
