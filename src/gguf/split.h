// Models split over several files, as llama.cpp's gguf-split writes them: <prefix>-00001-of-0000N.gguf, each
// a whole GGUF file with split.no, split.count and split.tensors.count; the first carries the metadata.
// Internal to this room.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "gguf/part.h"

namespace plumb {

struct SplitName {
  std::string prefix;
  int64_t part = 0;  // from 1
  int64_t count = 0;
};

/// What a file name says, or nothing when it has not that form.
std::optional<SplitName> parse_split_name(std::string_view path);
std::string split_path(const std::string& prefix, int64_t part, int64_t count);

/// The number of files of the model, 1 when it is not split; throws when split.count is no sensible number.
int64_t split_count(const Part& part);

/// Throws unless `part` says that it is number `no` (from 0) of `count`.
void check_split(const Part& part, int64_t no, int64_t count);

/// Throws unless the parts fit together: tensors as many as announced, later parts without metadata of their
/// own.
void check_parts(std::span<const Part> parts);

}  // namespace plumb
