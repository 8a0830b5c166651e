// What `plumb inspect` says about a file, as text for a terminal and as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "gguf/gguf.h"

namespace plumb {

struct FormatTotal {
  Format format;
  int64_t tensors = 0;
  int64_t elements = 0;
  int64_t bytes = 0;
  double bits_per_weight() const { return double(bytes) * 8 / double(elements); }
};

/// Sums per format, in order of id; only formats that occur.
std::vector<FormatTotal> totals(const Gguf& file);

/// The tokenizer as the metadata gives it, unjudged: model, pre, size, special ids with their texts, flags,
/// counts. Null when the file has none.
Json tokenizer_summary(const Gguf& file);

/// "[576, 49152]", in GGUF order.
std::string shape_text(const GgufTensor& tensor);

/// The whole report; `full` shows every element of arrays and every character of strings. Fits 80 columns
/// where names allow, holds no control byte of the file.
std::string inspect_text(const Gguf& file, bool full);

/// The same as a JSON object: file, version, alignment, bytes, metadata, tokenizer, tensors, totals.
Json inspect_json(const Gguf& file, bool full);

}  // namespace plumb
