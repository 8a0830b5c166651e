// The writer of Programs: model files call it as if they computed.
#pragma once

#include <string>
#include <string_view>

#include "program/program.h"

namespace plumb {

/// Looks up tensors by their GGUF name.
class WeightIndex {
 public:
  virtual ~WeightIndex() = default;
  /// rows = 0 when there is no such tensor.
  virtual WeightRef find(const std::string& name) const = 0;
};

/// Every method appends one node and returns its value. Throws Error "model.tensor_missing" or "model.shape"
/// with the tensor and the model's source line. An operation with a weight is named after it, others by the
/// caller.
class Graph {
 public:
  explicit Graph(const WeightIndex& weights) : index_(weights) {}

  /// Names below are blk.<l>.*; l < 0: no prefix.
  void block(int l) { prefix_ = l < 0 ? "" : "blk." + std::to_string(l) + "."; }

  Value embed(const char* w, Here at = {});
  /// x [T, *] -> [T, heads, rows / heads]; adds <w>.bias where the file has one.
  Value linear(const char* w, Value x, int heads = 1, Here at = {});
  /// The last matrix: "output", or "token_embd" where the file ties them. Named "logits".
  Value head(Value x, Here at = {});
  /// Normalises each head of x.
  Value rms_norm(const char* w, Value x, float eps, Here at = {});
  Value rope(const char* name, Value x, Rope rope, Here at = {});
  /// q [T, n_head, d], k and v [T, n_head_kv, d] -> [T, n_head * d]
  Value attention(const char* name, Value q, Value k, Value v, Attention attention, Here at = {});
  Value glu(const char* name, Value gate, Value up, Act act, Here at = {});
  Value add(const char* name, Value a, Value b, Here at = {});
  Value scale(const char* name, Value x, double factor, Here at = {});

  /// A tensor that an operation refers to, such as rope_freqs; -1 when absent.
  Weight optional(const char* w, int64_t rows, int64_t columns, Here at = {});

  Program p;

 private:
  Weight need(const std::string& name, Here at);
  Weight use(const WeightRef& ref);
  Value put(Op op, std::vector<Value> in, Shape shape, const char* name, Here at);
  void check_shape(const WeightRef& w, int64_t rows, int64_t columns, Here at) const;

  const WeightIndex& index_;
  std::string prefix_;
};

}  // namespace plumb
