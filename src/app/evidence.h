// Evidence as it comes: traces, evidence files, and logs with the rules that read them.
#pragma once

#include <string>

#include "trace/trace.h"

namespace plumb {

/// A trace folder or evidence file, or a log where `rules` (a file) is given or one *.rules lies beside it.
trace::Trace open_evidence(const std::string& path, const std::string& rules);

/// The log as an evidence file's JSON.
Json import_log(const std::string& path, const std::string& rules);

}  // namespace plumb
