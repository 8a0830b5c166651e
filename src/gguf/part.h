// One GGUF file, read and checked: what Gguf is put together from. Internal to this room.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/cursor.h"
#include "gguf/gguf.h"

namespace plumb {

/// The order of a list by name; ties (which are refused) by position. Sorting, unlike hashing, has no bad
/// inputs.
using NameIndex = std::vector<uint32_t>;

struct Part {
  std::string file;
  int64_t file_bytes = 0;
  uint32_t version = 0;
  int64_t alignment = 0;
  int64_t metadata_end = 0;           // where the tensor table begins
  std::vector<GgufValue> values;      // in file order
  NameIndex keys;                     // of values
  std::vector<GgufTensor> tensors;    // in file order
  std::vector<int64_t> info_offsets;  // where each tensor's entry begins

  const GgufValue* find(std::string_view key) const;
};

/// Reads one file; the views in the result point into `bytes`. Tensor names may still be given twice. Throws
/// Error.
Part read_part(std::span<const uint8_t> bytes, const std::string& file);

/// The value with that key, or null.
const GgufValue* find_value(std::span<const GgufValue> values, const NameIndex& index, std::string_view key);

// The steps of read_part.
void read_metadata(Cursor& in, uint64_t count, std::span<const uint8_t> bytes, Part& part);
void read_tensors(Cursor& in, uint64_t count, std::span<const uint8_t> bytes, Part& part);

/// The checked value of general.alignment, or its default.
int64_t read_alignment(const Cursor& in, const Part& part);

/// True when every byte is printable ASCII: the specification's rule for keys, ours for tensor names too.
bool is_plain(std::string_view text);

}  // namespace plumb
