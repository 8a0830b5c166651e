// How a failure becomes a message and an exit status.
#pragma once

namespace plumb {

/// Inside a catch block: says on standard error what was thrown; returns the process's exit status.
int report_failure();

}  // namespace plumb
