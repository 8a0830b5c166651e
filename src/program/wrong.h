// How an operation can be computed wrongly: fields that exist only so that a known bug of other engines can
// be written as an edit of a Program (trace/faults.h). Every default is right. The reference obeys them; the
// planner refuses a Program that carries one, so the fast kernels never learn of them.
#pragma once

#include <cstdint>
#include <functional>

namespace plumb {

/// Number formats to which values may be rounded: mantissas of 11, 8 and 11 bits (TF32 with the exponents of
/// f32); blocks of 32 codes of 8 or 4 bits with an f16 scale; of 256 codes of 8 bits with an f32 scale
/// (Q8_K).
enum class Rounded { none, f16, bf16, tf32, q8, q4, q8_k };

/// What happens to the rows of any node before others read them; in this order.
struct WrongNode {
  double factor = 1, add = 0;
  double softcap = 0;      // c tanh(x / c); 0: none
  double limit = 0;        // clips to [-limit, limit]; 0: none
  bool sinusoids = false;  // adds sin and cos of the absolute position
  int roll = 0;            // element i is what element i - roll should be
  int row_shift = 0;       // row t is what row t - row_shift should be; rows before the first are the first
  Rounded round = Rounded::none;
  bool operator==(const WrongNode&) const = default;
};

struct WrongEmbed {
  int id_offset = 0;  // row of id + offset
  bool operator==(const WrongEmbed&) const = default;
};

struct WrongLinear {
  Rounded input = Rounded::none;
  Rounded accumulator = Rounded::none;  // f16 or bf16: every partial sum
  bool block_sums_f16 = false;          // the scaled sum of 32 inputs overflows as an f16 does
  bool operator==(const WrongLinear&) const = default;
};

enum class NormFormula { rms, absent, eps_outside, multiplies, centred, sum, mean_absolute, all_rows };
enum class NormWeight { once, absent, twice, plus_one, minus_one };

struct WrongNorm {
  NormFormula formula = NormFormula::rms;
  NormWeight weight = NormWeight::once;
  Rounded before_weight = Rounded::none;
  bool repeated = false;   // normalised twice before the weight
  bool whole_row = false;  // one norm over all heads
  bool operator==(const WrongNorm&) const = default;
};

/// right; always 0; counted from the start of the call; that of the first token of the call; the head's
/// index.
enum class PositionRule { right, zero, restarts, stuck, head };

struct WrongRope {
  PositionRule position = PositionRule::right;
  double offset = 0;           // added to the position
  bool backwards = false;      // turns the other way
  bool slowest_first = false;  // frequencies in reverse order
  double turned = 1;           // share of the pairs, the fastest first, that turn at all
  Rounded angle = Rounded::none;
  Rounded table = Rounded::none;  // cosine and sine
  bool operator==(const WrongRope&) const = default;
};

enum class MaskRule { causal, none, excludes_self, sees_next, backwards };
/// Masked scores become: minus infinity; a number; themselves plus a number; weights of 0 after the softmax.
enum class MaskedScore { infinite, number, added, after_softmax };
enum class SoftmaxAxis { keys, queries, heads };
/// Which kv head a query head reads: as the operation says; h % n; always 0; in reverse order.
enum class WrongHeads { right, interleaved, zero, reversed };
/// The output as [head, dim] of a token; [dim, head]; all tokens of a head side by side.
enum class MergeOrder { right, dim_first, tokens_inside };
/// Where keys and values of a step go: behind the others; over the last one; behind an empty place; nowhere
/// (what was there before the call is dropped).
enum class SlotRule { append, overwrite, hole, forgotten };
/// Cached rows as they are read: as stored; by steps, those of the prompt stored [head, token] but read
/// [token, head]; by steps, as many as the window from the start; all rows repeated behind each other, where
/// each head should have been.
enum class CacheView { right, heads_first, first_window, rows_repeated };

struct WrongAttention {
  MaskRule mask = MaskRule::causal;
  MaskedScore masked = MaskedScore::infinite;
  double mask_value = 0;
  SoftmaxAxis axis = SoftmaxAxis::keys;
  double softcap = 0;  // of the scaled scores; 0: none
  bool sink = false;   // exp(0) joins the sum of each softmax
  WrongHeads k_heads = WrongHeads::right, v_heads = WrongHeads::right;
  MergeOrder merge = MergeOrder::right;
  bool one_head = false;      // scores of all heads are added up
  bool v_transposed = false;  // values of a call lie [head, dim, token] and are read [token, head, dim]
  Rounded scores = Rounded::none;
  Rounded cache = Rounded::none;  // of cached keys and values
  SlotRule slot = SlotRule::append;
  CacheView view = CacheView::right;
  bool stores_fourth = false;  // later calls read the node's fourth input as keys
  bool operator==(const WrongAttention&) const = default;
};

enum class GluFormula { act_gate_times_up, act_of_product, act_gate, act_up, act_both, act_gate_plus_up };
enum class WrongAct { right, gelu_erf, gelu_quick, relu, sigmoid, identity };

struct WrongGlu {
  GluFormula formula = GluFormula::act_gate_times_up;
  WrongAct act = WrongAct::right;
  bool operator==(const WrongGlu&) const = default;
};

/// What a sequence feeds the model besides what it is given.
struct WrongFeed {
  bool repeats_last = false;  // the last token of the prompt once more before the first step
  bool lags = false;          // each step gets the token before
  int leftover = 0;           // so many tokens of an earlier prompt are still in the cache
  bool operator==(const WrongFeed&) const = default;
};

struct WeightRef;
/// Reads a row of a weight in a wrong way.
using ReadRow = std::function<void(const WeightRef&, int64_t row, float* out)>;

}  // namespace plumb
