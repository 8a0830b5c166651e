// One sequence in the fast plan on the CPU. Where several ranks share the model (RunnerOptions::comm), rank
// 0's runners are used as any other; before each pass they say what it is, and the other ranks run it too.
#pragma once

#include <memory>

#include "engine/runner.h"

namespace plumb {

std::unique_ptr<Runner> make_cpu_runner(const Model& model, const RunnerOptions& options);

/// By ranks behind the first: runs what rank 0's runners run, until it dismisses them. The model's Program is
/// the rank's (Model::run_as_rank). Throws what a pass throws.
void follow_first_rank(const Model& model, const RunnerOptions& options);

/// By rank 0: the others return.
void dismiss_ranks(Comm& comm);

}  // namespace plumb
