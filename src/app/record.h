// What `plumb record` runs: programs in Python that are part of the binary, for engines that speak Python.
#pragma once

#include "base/embedded_file.h"

namespace plumb {

/// The files of tools/record.
std::span<const EmbeddedFile> record_files();

}  // namespace plumb
