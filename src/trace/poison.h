// Files that carry a fault, or undo one: the model again with other weights and metadata.
#pragma once

#include <optional>
#include <string>

#include "trace/faults.h"

namespace plumb::trace {

struct CureOptions {
  /// Of tensors whose own format cannot hold the changed numbers; empty: F32, which changes none of them.
  std::optional<Format> format = {};
};

/// A file with which a right engine computes what the fault does. Throws Error "fault.no_file" where no file
/// can carry it, "fault.applies" where the model cannot have it, "file.write".
void write_poison(const Gguf& file, const Program& program, const ChosenFault& fault, const std::string& path,
                  const CureOptions& options = {});

/// A file with which the faulty engine computes what is right; throws the same.
void write_antidote(const Gguf& file, const Program& program, const ChosenFault& fault,
                    const std::string& path, const CureOptions& options = {});

}  // namespace plumb::trace
