// What `plumb record` runs: programs in Python that are part of the binary, for engines that speak Python.
#pragma once

#include <span>
#include <string_view>

namespace plumb {

struct EmbeddedFile {
  std::string_view name, text;
};

/// The files of tools/record; the source is made by the build (cmake/embed.cmake).
std::span<const EmbeddedFile> record_files();

}  // namespace plumb
