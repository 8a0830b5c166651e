// The fast form of a Program: a list of fused steps over buffers in one arena. What is fused, and what is
// observed, never changes a bit: a fused step computes the operations of its nodes in their order, each
// rounded as docs/numerics.md says.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "program/program.h"

namespace plumb {

/// Formats whose products run on integer activations (docs/numerics.md); the others multiply in f32.
bool quantised_input(Format format);

/// How such a matrix rounds what it multiplies: 8 bits per 32 columns; these with the four largest columns of
/// every 128 refined; 16 bits.
enum class Rounding { int8, refined, int16 };

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
  int first = 0;  // element of x's rows where y begins: a slice
  double scale = 1;
  Weight post = -1;
  float post_eps = 0;
  Value residual = -1;
  Value sum = -1;  // the value before the last norm, or -1 when there is no last norm
  Weight norm = -1;
  float eps = 0;
  Value out;
};

/// Matrices that share one input, which may be the output of a row step computed first. Then either nothing,
/// or sum = residual + part 0, or out = act(part 0) * part 1.
struct LinearStep {
  struct Part {
    Weight w, bias;
    Value out;
  };
  Value x;
  std::optional<RowStep> row = {};  // gives x, which then has no buffer
  Rounding rounding = Rounding::int8;
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
};

struct GluStep {
  Act act;
  Value gate, up, out;
};

/// Shows the rows of a value, just computed, to whoever runs the plan.
struct TapStep {
  Value v;
};

/// Rows of all ranks' parts side by side. x keeps its place until the next such step, as other ranks may read
/// it until then.
struct GatherStep {
  Value x, out;
};

struct Step {
  std::variant<RopeTableStep, EmbedStep, RowStep, LinearStep, HeadsStep, AttentionStep, GluStep, TapStep,
               GatherStep>
      what;
  std::vector<Value> values;  // the nodes that it computes
  bool wanted = false;
  int64_t weight_bytes = 0;  // read once per call
  int64_t flops = 0;         // per token; attention: per token and visible key
};

struct Plan {
  const Program* program = nullptr;
  std::vector<Step> steps;
  std::vector<int64_t>
      places;  // by value: arena offset of its rows [rows, stride] in f32, -1 where nobody reads them
  std::vector<int64_t> tables;  // arena offset of each RopeTableStep
  int64_t arena_bytes = 0;
  int max_tokens = 0, max_wanted = 0;
};

struct PlanOptions {
  int max_tokens = 1;
  int max_wanted = 1;     // rows of logits in one call
  bool all_rows = false;  // logits of every token; then max_wanted plays no part
  bool fuse = true;
  Rounding rounding = Rounding::refined;  // the output matrix has 16 bits where the others are refined
  bool rows_apart = false;  // no row step joins a matrix; a norm's input lives as long as its output
  std::set<Value> observed =
      {};  // kept in f32 for every token; when not empty, only they and what they need are computed
  std::set<Value> taps = {};  // shown by a step of their own as soon as they are computed
};

Plan make_plan(const Program& program, const PlanOptions& options);

/// The plan as text: a line per step with its nodes, bytes and flops, and totals.
std::string print(const Plan& plan);

/// What a step is, with what was fused into it: "linear*2+glu".
std::string kind_of(const Step& step);

/// Floats from one row of a value to the next: its size rounded up to 32, so that kernels may write whole
/// tiles.
inline int64_t row_stride(int64_t size) { return (size + 31) / 32 * 32; }

}  // namespace plumb
