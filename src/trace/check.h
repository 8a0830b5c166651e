// What a correct run must satisfy whatever the model: tests that need no second engine, and with the model's
// file those that compare with what this file is like (docs/check.md).
#pragma once

#include "engine/model.h"
#include "trace/compare.h"

namespace plumb::trace {

struct Finding {
  enum class Outcome { holds, violated, note };  // note: a fact that is neither

  std::string test;  // "lattice", "residual", "softmax", ...
  Outcome outcome = Outcome::holds;
  std::string value;   // where; the first place of several
  std::string text;    // with the numbers
  bool named = false;  // it says what is wrong, not only where
};

struct CheckRequest {
  Trace& theirs;                 // its ambiguous labels are settled
  const Model* model = nullptr;  // the file that they ran
  const Trace* again = nullptr;  // the same tokens in the same engine, cut into other calls
};

/// All tests for which there is evidence, in the order in which they should be read.
std::vector<Finding> check(const CheckRequest& request);

// The groups of tests. Each adds what it found.
void check_values(const Rows& rows, const std::string& arch, std::vector<Finding>& out);
void check_rotation(const Rows& rows, const Model* model, std::vector<Finding>& out);
void check_again(const Rows& rows, const Rows& again, std::vector<Finding>& out);
void check_summaries(const Trace& theirs, const std::string& arch, std::vector<Finding>& out);
void check_samples(const Trace& theirs, std::vector<Finding>& out);
void check_lattice(const Trace& theirs, const Model* model, std::vector<Finding>& out);
void check_tokens(const Trace& theirs, const Model& model, std::vector<Finding>& out);
void check_against_file(const Trace& theirs, const Rows& rows, const Model& model, std::vector<Finding>& out);

}  // namespace plumb::trace
