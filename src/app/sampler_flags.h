// How the next token is drawn, as flags.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "engine/sampler.h"

namespace plumb {

struct SamplerFlags {
  SamplerOptions options;
  int64_t seed = -1;
  std::string samplers = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature";
  std::vector<std::string> breakers, biases;

  void add(CLI::App* command);
  /// The options with chain and seed as the flags have them; a seed below 0 is drawn. Throws Error
  /// "sampler.value".
  SamplerOptions sampler() const;

 private:
  void add_repeats(CLI::App* command);
};

}  // namespace plumb
