// Diagnosis from a full trace: every operation is computed on the foreign inputs, under each fault. Errors do
// not accumulate, so that several faults are named one by one.
#pragma once

#include "trace/diff.h"
#include "trace/search.h"

namespace plumb::trace {

/// What the diff of a full trace has found, and the trace with its representation undone.
struct LocalRequest {
  const DiagnoseRequest& request;
  const Trace& theirs;
  const Diff& diff;
};

/// Candidates, best first, for the operations that the diff marked; `left` are those that the best leaves.
struct LocalDiagnosis {
  std::vector<Candidate> candidates;
  std::vector<std::string> left;
  std::vector<Reproduced> numbers;  // relative errors of marked operations: by our operation, by the fault's
  int64_t tried = 0;
};

LocalDiagnosis diagnose_locally(const LocalRequest& request);

/// An operation that agrees as it is and would not under the faults; empty: none.
std::string contradicted_by(const LocalRequest& request, const FaultSet& faults);

}  // namespace plumb::trace
