// The logits of a run over a text, kept in a file for others to be compared with.
//
// Our format, little-endian: "PLUMBKL1", then as int32 n_ctx, n_vocab, chunks; the tokens of every chunk
// [chunks, n_ctx] as int32; the logits of its scored positions [chunks, rows_scored(n_ctx), n_vocab] as
// float32. llama-perplexity's files are read too: "_logits_", the same three numbers and tokens, then per row
// two floats, step and least log probability, and the log probabilities as uint16 multiples of the step above
// it.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/file.h"

namespace plumb {

class LogitBase {
 public:
  /// Throws Error "base.format", "base.truncated", "base.version" or those of MappedFile.
  explicit LogitBase(const std::string& path);

  int n_ctx() const { return n_ctx_; }
  int n_vocab() const { return n_vocab_; }
  int chunks() const { return chunks_; }
  std::vector<int> tokens(int chunk) const;
  /// Logits, or log probabilities, of scored row `row` of a chunk.
  void read(int chunk, int row, std::vector<double>& to) const;

 private:
  int32_t int_at(size_t offset) const;
  [[noreturn]] void refuse(const char* code, std::string expected, std::string found, int64_t offset) const;

  std::string path_;
  MappedFile file_;
  bool quantised_ = false;  // llama-perplexity's
  int n_ctx_ = 0, n_vocab_ = 0, chunks_ = 0;
  size_t row_bytes_ = 0, rows_at_ = 0;
};

/// Writes the file row by row while `rows` calls the function it is given, once for every row in order;
/// nothing is left at `path` unless all were.
void write_logit_base(
    const std::string& path, int n_ctx, int n_vocab, const std::vector<std::vector<int>>& chunks,
    const std::function<void(const std::function<void(std::span<const double>)>& row)>& rows);

}  // namespace plumb
