// What the tests of traces share. Tests only.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "engine/test_support.h"

namespace plumb::testing {

/// An empty folder, removed at the end.
struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "plumb_trace_XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  std::string path;
};

}  // namespace plumb::testing
