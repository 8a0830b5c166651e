// One sequence under one arithmetic: the fast CPU plan, or the reference in f32 or f64.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "base/comm.h"
#include "cpu/kv_layout.h"
#include "engine/model.h"
#include "plan/plan.h"
#include "program/reference.h"

namespace plumb {

enum class Arith { fast, f32, ref32, ref64 };  // f32: of CUDA
enum class Backend { cpu, cuda };
enum class NodeRounding { none, f16, bf16 };

/// Rows of a value as soon as decode() has computed them, valid during the call: of the tokens from
/// `position` on. The fast arithmetic computes the last norm and the logits of the last token only.
struct SeenRows {
  Value value;
  int64_t position;
  int rows;
  int64_t stride;                                // from one row to the next
  std::variant<const float*, const double*> at;  // double from ref64
};

/// Rows of a value inside attention, [rows, heads, dim]; dim of kq and probs is the number of keys.
struct SeenInner {
  Value attention;
  Inner part;
  int64_t position;
  int rows, heads;
  int64_t dim;
  std::variant<const float*, const double*> at;
};

struct RunnerOptions {
  Arith arith = Arith::fast;
  Backend backend = Backend::cpu;                     // of the fast arithmetic
  std::vector<int> devices = {0};                     // of CUDA; several share the model
  int device_layers = -1;                             // the first layers, the rest on the CPU; -1: all
  bool fit = false;                                   // instead as many as fit
  bool self_test = true;                              // the device against the CPU before it is used
  bool fallback = false;                              // to the CPU, if the device cannot be used
  std::function<void(const std::string&)> note = {};  // hears how many fit, and of a fallback
  int n_ctx = 0;                                      // 0: what the model was trained with
  int n_ubatch = 512;                                 // tokens per call, at most; never changes a bit
  KvTypes kv = {};
  Rounding rounding = Rounding::refined;    // of activations, in the fast arithmetic
  bool cuda_f16 = false;                    // several tokens on CUDA: in f16 on tensor cores
  const cuda::Api* cuda_api = nullptr;      // null: the library found at run time
  NodeRounding nodes = NodeRounding::none;  // of every value, in the references
  Arithmetic arithmetic = {};               // in the references: the number formats of a fault
  bool fuse = true;
  int draft = 0;  // ids that prompt lookup may draft for one pass; 0: none; changes no bit; only the CPU's
                  // fast arithmetic
  std::set<Value> taps = {};  // shown to `see`, which changes no bit; neither on CUDA nor beside drafts
  std::function<void(const SeenRows&)> see = {};
  std::set<Value> inner_taps = {};  // attentions whose inner values `see_inner` is shown; references only
  std::function<void(const SeenInner&)> see_inner = {};
  std::atomic<bool>* cancel = nullptr;  // asked between calls; then Error "run.cancelled"
  Comm* comm = nullptr;  // ranks whose parts this model's Program gathers; rank 0 leads (engine/cpu_runner.h)
};

/// Throws Error "context.full" or "token.range" if a sequence of `length` tokens cannot take these.
void check_tokens(const Model& model, std::span<const int> tokens, int64_t length, int64_t n_ctx);

struct DraftCounts {
  int64_t drafted = 0, accepted = 0;
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

  /// Forgets what lies behind the first `length` tokens. The references cannot.
  void truncate(int64_t length);

  virtual DraftCounts drafts() const { return {}; }

  int64_t length() const { return length_; }
  int64_t n_ctx() const { return n_ctx_; }

 protected:
  Runner(const Model& model, const RunnerOptions& options);
  virtual std::span<const float> decode_piece(std::span<const int> tokens, bool last) = 0;
  virtual void observe_piece(std::span<const int> tokens, Value value, const See& see) = 0;
  virtual void forget() {}  // what lies behind length()

  const Model& model_;
  RunnerOptions options_;
  int64_t length_ = 0, n_ctx_ = 0;
  Value reach_;                           // values up to this one have been computed for every token so far
  int observe_most_ = 1;                  // tokens per call of observe
  std::span<const int> next_piece_ = {};  // the tokens that the next call of decode_piece() will have

 private:
  void pieces(std::span<const int> tokens, int most,
              const std::function<void(std::span<const int>, bool last)>& run);
};

}  // namespace plumb
