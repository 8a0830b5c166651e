// The fast form of a Program: a list of fused steps over buffers in one arena. What is fused, and what is
// observed, never changes a bit: a fused step computes the operations of its nodes in their order, each
// rounded as docs/numerics.md says.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "program/program.h"

namespace plumb {

/// Formats whose products run on int8 activations (docs/numerics.md); the others multiply in f32.
bool quantised_input(Format format);

// Steps. Every Value is a node of the Program; -1 means none. `wanted` steps compute only the rows that the
// batch wants.

/// Cosine and sine of every token's position: table [T, dims / 2] of each, for all ropes with the same
/// parameters.
struct RopeTableStep {
  Rope rope;
  int table;
};

/// out = row of the table, times scale.
struct EmbedStep {
  Weight table;
  double scale = 1;
  Value out;
};

/// Row by row: y = x * scale; y = rms_norm(y, post); sum = residual + y; out = rms_norm(sum, norm). Absent
/// parts are skipped.
struct RowStep {
  Value x;
  double scale = 1;
  Weight post = -1;
  float post_eps = 0;
  Value residual = -1;
  Value sum = -1;  // the value before the last norm, or -1 when there is no last norm
  Weight norm = -1;
  float eps = 0;
  Value out;
};

/// Matrices that share one input. Then either nothing, or sum = residual + part 0, or out = act(part 0) *
/// part 1.
struct LinearStep {
  struct Part {
    Weight w, bias;
    Value out;
  };
  Value x;
  std::vector<Part> parts;
  Value residual = -1;
  Value sum = -1;
  Value glu = -1;
  Act act = Act::silu;
};

/// Heads of q, k and v: optional norm, optional rope, then into their buffer and, for k and v, into the
/// cache.
struct HeadsStep {
  enum class Store { none, k, v };
  struct Part {
    Value x;
    Weight norm = -1;
    float eps = 0;
    int table = -1;  // RopeTableStep
    RopeStyle style = RopeStyle::half;
    int dims = 0;
    Store store = Store::none;
    Value out;  // equal to x when there is neither norm nor rope
  };
  std::vector<Part> parts;
  int layer;
};

struct AttentionStep {
  Attention attention;
  Value q, k;
  Value out;

  /// Heads of whole blocks are rounded by the unit that computes them; others wait for a QuantiseStep.
  bool writes_x8(const Program& p) const { return p.shape(k).dim % 32 == 0; }
};

struct GluStep {
  Act act;
  Value gate, up, out;
};

/// The int8 form of a value whose own step cannot write it.
struct QuantiseStep {
  Value x;
};

struct Step {
  std::variant<RopeTableStep, EmbedStep, RowStep, LinearStep, HeadsStep, AttentionStep, GluStep, QuantiseStep>
      what;
  std::vector<Value> values;  // the nodes that it computes
  bool wanted = false;
  int64_t weight_bytes = 0;  // read once per call
  int64_t flops = 0;         // per token; attention: per token and visible key
};

/// Byte offsets in the arena, -1 where a form is not needed.
struct Placement {
  int64_t f32 = -1;  // [rows, stride] floats
  int64_t x8 = -1;   // int8 codes, scales and sums of every row
};

struct Plan {
  const Program* program = nullptr;
  std::vector<Step> steps;
  std::vector<Placement> places;  // by value
  std::vector<int64_t> tables;    // arena offset of each RopeTableStep
  int64_t arena_bytes = 0;
  int max_tokens = 0, max_wanted = 0;
};

struct PlanOptions {
  int max_tokens = 1;
  int max_wanted = 1;     // rows of logits in one call
  bool all_rows = false;  // logits of every token; then max_wanted plays no part
  bool fuse = true;
  bool float_inputs = false;  // all values in f32, none as int8; a norm's input lives as long as its output
  std::set<Value> observed =
      {};  // kept in f32 for every token; when not empty, only they and what they need are computed
};

Plan make_plan(const Program& program, const PlanOptions& options);

/// The plan as text: a line per step with its nodes, bytes and flops, and totals.
std::string print(const Plan& plan);

/// What a step is, with what was fused into it: "linear*2+glu".
std::string kind_of(const Step& step);

/// Floats from one row of a value to the next: its size rounded up to 32, so that kernels may write whole
/// tiles.
inline int64_t row_stride(int64_t size) { return (size + 31) / 32 * 32; }

/// Bytes of the int8 form of `rows` rows: two planes of codes, a scale per 32 and a sum per 16 elements.
inline int64_t x8_bytes(int64_t rows, int64_t size) {
  return rows * (2 * size + size / 32 * 4 + size / 16 * 4);
}

}  // namespace plumb
