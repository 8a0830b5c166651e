#include "app/failure.h"

#include <fmt/format.h>

#include <cstdio>
#include <new>

#include "app/exit_codes.h"
#include "base/error.h"

namespace plumb {

int report_failure() {
  try {
    throw;
  } catch (const ExitStatus& e) {
    return e.status;
  } catch (const Error& e) {
    std::fflush(stdout);
    if (e.code() != "run.cancelled") fmt::print(stderr, "plumb: {}\n", e.what());
    return exit_code(e.code());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "plumb: out of memory [memory.allocate]\n");
    return kExitMemory;
  } catch (const std::exception& e) {
    fmt::print(stderr, "plumb: {} [internal]\n", e.what());
    return kExitFailure;
  }
}

}  // namespace plumb
