// Files of this repository that are part of the binary; their sources are made by the build
// (cmake/embed.cmake).
#pragma once

#include <span>
#include <string_view>

namespace plumb {

struct EmbeddedFile {
  std::string_view name, text;
};

}  // namespace plumb
