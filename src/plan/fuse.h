// Which nodes become one step.
#pragma once

#include "plan/plan.h"

namespace plumb {

/// The steps of the Program in an order that computes every input first; buffers, bytes and flops are not yet
/// set. `n_tables` receives the number of rope tables.
std::vector<Step> fuse(const Program& program, const PlanOptions& options, int* n_tables);

}  // namespace plumb
