// Where two runs part: token ids first, then value by value, then operation by operation.
#pragma once

#include "trace/floor.h"

namespace plumb::trace {

struct Diff {
  enum class Verdict { same, named, diverges, unusable };

  Verdict verdict = Verdict::unusable;
  std::string reason;              // of unusable, or the cause that was named
  int64_t tokens = 0;              // positions compared
  int64_t token_at = -1;           // first position where the ids differ
  std::vector<Difference> values;  // in the order of the computation
  std::string profile;             // whose floor judges the values
  bool measured_floor = false;     // else assumed
  int first = -1;                  // index of the first value above the floor
  bool replayed = false;
  std::vector<Replayed> operations;
  std::string operation_profile;
  std::vector<int> lit;  // indices of operations above their floor
  std::vector<std::string> names_only_theirs;
};

struct DiffRequest {
  const Trace& theirs;
  const Trace* ours = nullptr;  // or a model
  const Model* model = nullptr;
  std::string cache = {};               // folder of noise floors
  std::atomic<bool>* cancel = nullptr;  // asked between values; then Error "run.cancelled"
};

Diff diff(const DiffRequest& request);

/// The operation of a value: its node's, if the model is known.
std::string operation_of(const Model* model, const std::string& value);

}  // namespace plumb::trace
