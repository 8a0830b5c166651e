// What the benchmarks drive: one sequence on whichever backend was asked for, fed with random tokens.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "engine/model.h"
#include "engine/sequences.h"

namespace plumb {

class BenchEngine {
 public:
  BenchEngine(const Model& model, const RunnerOptions& options);

  /// `n` random tokens in pieces of at most `batch`, the last of each with logits; the first of an empty
  /// sequence is the model's beginning-of-text token where it has one.
  void prompt(int n, int batch);
  /// `n` tokens one by one, each with logits.
  void answer(int n);
  void truncate(int64_t length);
  /// Null where the backend has no plan of steps on the CPU.
  Sequences* sequences() { return sequences_.get(); }

 private:
  void add(std::span<const int> tokens);
  int draw() { return int(random_() % unsigned(model_.n_vocab())); }
  int first() { return bos_ >= 0 ? bos_ : draw(); }

  const Model& model_;
  std::unique_ptr<Sequences> sequences_;
  std::unique_ptr<Runner> runner_;
  std::minstd_rand random_{1};
  int bos_ = -1;
  int64_t length_ = 0;
};

/// "llama 1.1B Q4_0": architecture, parameters, file type.
std::string describe_model(const Gguf& file);
int64_t count_parameters(const Gguf& file);
int64_t tensor_bytes(const Gguf& file);
/// The processor's name as the system gives it.
std::string cpu_name();
/// "2026-11-23T08:00:00Z"
std::string utc_now();

}  // namespace plumb
