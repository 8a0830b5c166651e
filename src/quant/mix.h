// Which tensor of a model gets which format in a quantised file: llama-quantize's file types and rules, for
// dense decoders (llama.cpp, src/llama-quant.cpp: llama_tensor_get_type).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quant/format.h"

namespace plumb {

struct FileType {
  const char* name;  // "Q4_K_M"
  int id;            // general.file_type
  Format format;     // of most tensors
};

std::span<const FileType> file_types();

/// The file type of that name in any case; Q3_K, Q4_K and Q5_K mean their _M; null when there is none.
const FileType* find_file_type(std::string_view name);

struct MixTensor {
  std::string_view name;
  Format format;
  int n_dims;
  int64_t columns;
};

struct MixOptions {
  const FileType* type;
  int n_layer = 0;
  int n_gqa = 1;      // query heads per key head
  bool pure = false;  // every matrix the same format
  bool leave_output = false;
  std::optional<Format> output, embedding;
  /// A format asked for by name of the tensor.
  std::function<std::optional<Format>(std::string_view name)> named = [](std::string_view) {
    return std::optional<Format>();
  };
};

struct MixChoice {
  Format format;
  bool fallback = false;  // the wanted format has blocks longer than divide a row
};

/// The format of each tensor, in the order given.
std::vector<MixChoice> choose_formats(std::span<const MixTensor> tensors, const MixOptions& options);

/// True for formats that hold codes, not floats.
bool is_quantised(Format format);

}  // namespace plumb
