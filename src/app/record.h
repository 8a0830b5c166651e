// What `plumb record` runs: programs in Python that are part of the binary, for engines that speak Python.
#pragma once

#include <string>
#include <vector>

#include "base/embedded_file.h"

namespace plumb {

/// A folder for this user alone, which goes away with its contents.
class PrivateFolder {
 public:
  PrivateFolder();
  ~PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string add(const EmbeddedFile& file) const;

 private:
  std::string path_;
};

/// Runs a recorder with those arguments; `python` may be empty. Throws ExitStatus with what it ended with,
/// unless 0.
void run_recorder(const std::string& kind, const std::vector<std::string>& arguments,
                  const std::string& python);

/// The files of tools/record.
std::span<const EmbeddedFile> record_files();

}  // namespace plumb
