// A loaded model: the file, its Program, its tokenizer, and the threads and weights that run it.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/isa.h"
#include "base/pool.h"
#include "cpu/weights.h"
#include "cuda/backend.h"
#include "gguf/gguf.h"
#include "program/program.h"
#include "text/tokenizer.h"

namespace plumb {

/// What is being done and how much of it, 0 to 1.
using Progress = std::function<void(const char* what, double share)>;

struct ModelOptions {
  int threads = 1;
  Isa isa = best_isa();
  std::string packed_folder = {};  // where packed weights are kept between runs; empty: nowhere
  Progress progress = [](const char*, double) {};
};

class Model {
 public:
  /// Throws Error for whatever is wrong with the file. Weights are made ready when weights() is first called.
  Model(const std::string& path, ModelOptions options);
  /// The same model with threads of its own, for work beside that of the other's: the file is shared, and the
  /// weights if they are ready. Not while another thread may make them ready.
  Model(const Model& shared, int threads);

  const Gguf& file() const { return *file_; }
  const Program& program() const { return program_; }
  /// Runs as another Program from now on: a fault, an ablation. Before weights() and any runner.
  void run_as(Program program) { program_ = std::move(program); }
  /// The same for one of several ranks' part of it (plan/split.h).
  void run_as_rank(int rank, int ranks, const std::set<Value>& wanted);
  /// Loaded when first asked for, so that a model with a tokenizer that we lack can still be run on token
  /// ids.
  const Tokenizer& tokenizer() const;
  const CpuWeights& weights() const;
  /// Its weights on the device of the options, once for all who hold them at the same time, and tested
  /// (engine/trial.h). Throws Error "memory.device" if they and one sequence do not fit, "cuda.selftest".
  std::shared_ptr<const CudaModel> on_device(const CudaOptions& options) const;
  Pool& pool() const { return *pool_; }
  Isa isa() const { return options_.isa; }
  const Progress& progress() const { return options_.progress; }
  int n_vocab() const { return program_.shape(program_.output).size(); }

 private:
  ModelOptions options_;
  std::shared_ptr<const Gguf> file_;
  Program program_;
  std::string part_ = {};  // of the model's name where packed weights are kept, if it is a rank's
  std::unique_ptr<Pool> pool_;
  mutable std::unique_ptr<Tokenizer> tokenizer_;
  mutable std::shared_ptr<const CpuWeights> weights_;
  mutable std::weak_ptr<const CudaModel> on_device_;
  mutable std::vector<int> devices_;  // of on_device_
};

}  // namespace plumb
