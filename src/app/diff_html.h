// What `plumb diff` says, as a page.
#pragma once

#include "app/report_page.h"
#include "trace/diff.h"

namespace plumb {

/// `ours` is null when theirs was compared with the model.
Report diff_page(const trace::Diff& diff, const trace::Trace& theirs, const trace::Trace* ours,
                 const Model* model);

}  // namespace plumb
