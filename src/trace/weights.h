// Two model files tensor by tensor: how far their weights lie apart, how much of that their number formats
// explain, and what kind of difference the rest is.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/pool.h"
#include "gguf/gguf.h"

namespace plumb::trace {

/// A matrix of `rows` contiguous rows of `columns` weights, under its name in GGUF.
struct Weight {
  std::string name, raw;  // raw: the name in the file
  Format format = Format::F32;
  std::vector<int64_t> ne;  // GGUF order
  int64_t columns = 1, rows = 1;
  const uint8_t* data = nullptr;
  // What brings the file's weights to the form that GGUF has.
  int64_t head_dim = 0;  // above 0: rows are in the order of Hugging Face, halves of heads of this size
  float plus = 0;        // to be added to every weight

  int64_t elements() const { return columns * rows; }
  int64_t stored_row(int64_t r) const;  // where row r of GGUF's form lies
  /// Row [columns] in GGUF's form.
  void row(int64_t r, float* out) const;
};

/// A GGUF file, a safetensors file, or a folder with model.safetensors or its index. Throws Error.
class Weights {
 public:
  static Weights open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::string& arch() const { return arch_; }  // empty: unknown
  bool is_gguf() const { return gguf_.has_value(); }
  const std::vector<Weight>& tensors() const { return tensors_; }
  const Weight* find(const std::string& name) const;
  /// Tells a safetensors file what the GGUF file beside it is, so that its conventions can be undone.
  void adapt_to(const Weights& gguf);

 private:
  void open_gguf(const std::string& path);
  void open_folder(const std::string& path);
  void open_shard(const std::string& path);

  std::string path_, arch_;
  std::optional<Gguf> gguf_;
  std::vector<MappedFile> files_;
  std::vector<Weight> tensors_;  // in the order of the file
};

/// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; other names stay. Gemma's norms have other
/// names than those of the rest.
std::string gguf_name(const std::string& name, bool gemma);

struct WeightDifference {
  enum class Verdict { same, quantisation, differs };

  std::string name;
  Verdict verdict = Verdict::same;
  std::string cause;       // of differs, if it was found
  std::string convention;  // what was undone before comparing
  const Weight *a = nullptr, *b = nullptr;
  double error = 0;                         // relative, of the whole tensor
  double explained = 0;                     // error that the formats explain
  double score = 0;                         // above 1: too much
  double cosine = 1, scale = 1, shift = 0;  // b is about scale times a; mean of b - a
  bool finite = true;
  int64_t row = -1, column = -1;  // of the largest difference
  double in_a = 0, in_b = 0;      // there
  std::vector<int64_t> bad_rows;  // whose error alone is too much, where most are well; the first 16
  int64_t n_bad_rows = 0;
};

struct WeightsDiff {
  std::vector<WeightDifference> tensors;  // in the order of the first file, then those of the second alone
  int64_t common = 0;
  int count(WeightDifference::Verdict v) const;
  int unnamed() const;  // differing tensors without a cause
};

using WeightsProgress = std::function<void(const char* what, double share)>;

/// Tensor by tensor: memory holds some rows of each.
WeightsDiff diff_weights(const Weights& a, const Weights& b, Pool& pool, const WeightsProgress& progress);

/// What kind of difference `d` is, tried on a sample of its weights; empty: none that we know.
std::string cause_of(const WeightDifference& d, const Weights& second);

/// Relative error of weights like those of `w` when they are stored as `format`.
double rounding_error(const Weight& w, Format format);

}  // namespace plumb::trace
