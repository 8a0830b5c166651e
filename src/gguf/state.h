// What stands behind a Gguf. Internal to this room.
#pragma once

#include <string>
#include <vector>

#include "base/file.h"
#include "gguf/part.h"

namespace plumb {

struct Gguf::State {
  std::string path;
  std::vector<MappedFile> maps;    // none after parse
  std::vector<std::string> files;  // their paths, or the names given to parse
  uint32_t version = 0;
  int64_t alignment = 0;
  int64_t bytes = 0;
  int64_t metadata_end = 0;  // of the first file: the place named when a key is missing
  std::vector<GgufValue> values;
  NameIndex keys;
  std::vector<GgufTensor> tensors;
  NameIndex names;

  /// Takes over checked parts; throws when they do not fit together or name a tensor twice.
  void join(std::vector<Part> parts);
};

}  // namespace plumb
