// From the metadata of a file to the Program of its model: one file per architecture, chosen by
// general.architecture.
#pragma once

#include <string>
#include <vector>

#include "gguf/gguf.h"
#include "program/graph.h"

namespace plumb {

/// The tensors of a file as weights: matrices [rows, columns], vectors [1, columns].
class GgufWeights : public WeightIndex {
 public:
  explicit GgufWeights(const Gguf& file) : file_(file) {}
  WeightRef find(const std::string& name) const override;

 private:
  const Gguf& file_;
};

/// Hyperparameters that the supported architectures share, in GGUF's spelling; each is checked against its
/// range.
struct Hyperparameters {
  int n_layer = 0;    // block_count
  int n_ctx = 0;      // context_length
  int n_embd = 0;     // embedding_length
  int n_head = 0;     // attention.head_count
  int n_head_kv = 0;  // attention.head_count_kv, default n_head
  int head_dim = 0;   // attention.key_length, default n_embd / n_head
  float eps = 0;      // attention.layer_norm_rms_epsilon
  Rope rope;          // rope.*
};

/// Reads <arch>.*; throws Error naming the key.
Hyperparameters read_hyperparameters(const Gguf& file, RopeStyle style);

/// The Program of the file's model. Throws Error "model.architecture" with the list of those supported, and
/// whatever its hyperparameters or tensors lack.
Program build_program(const Gguf& file);

/// Names of the tensors that no node of the Program uses, in file order.
std::vector<std::string> unused_tensors(const Gguf& file, const Program& program);

// The architectures.
Program llama(const Gguf& file, const WeightIndex& weights);
Program qwen2(const Gguf& file, const WeightIndex& weights);
Program qwen3(const Gguf& file, const WeightIndex& weights);
Program gemma3(const Gguf& file, const WeightIndex& weights);

}  // namespace plumb
