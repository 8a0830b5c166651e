// Exit statuses of the running verbs, from the code of the error that ended them.
#pragma once

#include <string_view>

namespace plumb {

constexpr int kExitFailure = 1, kExitModel = 2, kExitEvidence = 3, kExitAddress = 3, kExitUsage = 4,
              kExitFile = 5, kExitOutput = 6, kExitMemory = 7, kExitNonfinite = 8, kExitDevice = 9,
              kExitInterrupted = 130;

/// Thrown by a verb whose answer is its status, after it has printed what it has to say.
struct ExitStatus {
  int status;
};

int exit_code(std::string_view error_code);

}  // namespace plumb
