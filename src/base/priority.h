// The priority of threads.
#pragma once

#include <sys/resource.h>
#include <unistd.h>

namespace plumb {

/// The calling thread and those that it will start take a tenth of what others get, and all that they leave
/// (nice 10, which Linux keeps for each thread). Where the system refuses, nothing changes.
inline void lower_priority() { ::setpriority(PRIO_PROCESS, id_t(::gettid()), 10); }

}  // namespace plumb
