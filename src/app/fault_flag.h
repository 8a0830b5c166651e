// --fault: runs a model as an engine with known bugs would, in the reference's arithmetic.
#pragma once

#include <optional>

#include "app/flags.h"
#include "trace/faults.h"

namespace plumb {

struct FaultFlags {
  std::string list;
  void add(CLI::App* command);
};

/// Makes the model faulty, if that was asked for, and says so on standard error; without --arith the
/// arithmetic becomes ref32.
class FaultyRun {
 public:
  FaultyRun(const FaultFlags& flag, ModelFlags& flags, Model& model);

  RunnerOptions runner(RunnerOptions options) const;
  std::vector<int> ids(const PromptFlags& prompt, const Model& model) const;
  void sampler(SamplerOptions& options) const;
  const Tokenizer& tokenizer(const Model& model) const;

 private:
  std::optional<trace::Variant> variant_;
  std::vector<uint8_t> metadata_;
  std::optional<Gguf> changed_;
  std::optional<Tokenizer> tokenizer_;
};

}  // namespace plumb
