// One sequence under one arithmetic: the fast CPU plan, or the reference in f32 or f64.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "cpu/kv_layout.h"
#include "engine/model.h"

namespace plumb {

enum class Arith { fast, ref32, ref64 };
enum class Backend { cpu, cuda };

struct RunnerOptions {
  Arith arith = Arith::fast;
  Backend backend = Backend::cpu;  // of the fast arithmetic
  int device = 0;                  // of CUDA
  int n_ctx = 0;                   // 0: what the model was trained with
  int n_ubatch = 512;              // tokens per call, at most; never changes a bit
  KvTypes kv;
  bool fuse = true;
  std::atomic<bool>* cancel = nullptr;  // asked between calls; then Error "run.cancelled"
};

class Runner {
 public:
  /// Position in the sequence and the values of one row.
  using See = std::function<void(int64_t position, std::span<const double> row)>;

  static std::unique_ptr<Runner> make(const Model& model, const RunnerOptions& options);
  virtual ~Runner() = default;

  /// Appends tokens and returns the logits [n_vocab] after the last one, valid until the next call. Throws
  /// Error "context.full", "token.range", "run.cancelled", "numeric.nonfinite".
  std::span<const float> decode(std::span<const int> tokens);

  /// Appends tokens and shows the named value of every token, or of the last. What lies behind it is not
  /// computed, so a runner that has observed a value can afterwards go no further than that value.
  void observe(std::span<const int> tokens, Value value, bool all, const See& see);

  int64_t length() const { return length_; }
  int64_t n_ctx() const { return n_ctx_; }

 protected:
  Runner(const Model& model, const RunnerOptions& options);
  virtual std::span<const float> decode_piece(std::span<const int> tokens, bool last) = 0;
  virtual void observe_piece(std::span<const int> tokens, Value value, const See& see) = 0;

  const Model& model_;
  RunnerOptions options_;
  int64_t length_ = 0, n_ctx_ = 0;
  Value reach_;           // values up to this one have been computed for every token so far
  int observe_most_ = 1;  // tokens per call of observe

 private:
  void check(std::span<const int> tokens) const;
  void pieces(std::span<const int> tokens, int most,
              const std::function<void(std::span<const int>, bool last)>& run);
};

}  // namespace plumb
