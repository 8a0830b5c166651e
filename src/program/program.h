// A model as data: a flat list of named operations in single-assignment form.
//
// A model file (models/llama.cpp) writes one Program; every engine (reference, CPU, CUDA) reads it. Values
// are [T, heads, dim] with T, the tokens of a call, implicit; a plain vector has heads = 1. GGUF's tensor
// names are the vocabulary: a value is called what its weight is called, blk.3.attn_q for
// blk.3.attn_q.weight.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "program/wrong.h"
#include "quant/format.h"

namespace plumb {

/// The line of model code that created a node, relative to src/.
struct Here {
  const char* file;
  int line;
  constexpr Here(const char* f = __builtin_FILE(), int l = __builtin_LINE()) : file(f), line(l) {}
  std::string text() const { return std::string(file) + ":" + std::to_string(line); }
};

struct Shape {
  int heads = 1, dim = 0;
  int size() const { return heads * dim; }
  bool operator==(const Shape&) const = default;
};

using Value = int;   // index into Program::nodes
using Weight = int;  // index into Program::weights, -1 when absent

enum class Act { silu, gelu_tanh };
enum class RopeStyle { half, pairs };  // rotates (i, i + dims/2) or (2i, 2i + 1)
enum class RopeScaling { none, linear, yarn };
enum class HeadMap { grouped, interleaved };  // query head h reads kv head h / group or h % n_head_kv

// Operations. Each struct holds what the paper's formula needs, nothing about speed. Formulas: program/ops.h.
// `wrong` is how a fault has it computed otherwise.
struct Embed {
  Weight table;
  WrongEmbed wrong = {};
};
struct Linear {
  Weight w, bias = -1;
  WrongLinear wrong = {};
};
struct RmsNorm {
  Weight w;
  float eps;
  WrongNorm wrong = {};
};
struct Rope {
  RopeStyle style = RopeStyle::half;
  int dims = 0;  // the leading elements of each head that turn
  float freq_base = 1e4f;
  Weight factors = -1;  // divides each frequency (Llama 3): [dims / 2]
  RopeScaling scaling = RopeScaling::none;
  float factor = 1;          // context stretched by this much
  int original_context = 0;  // yarn only, from here on
  float attn_factor = 1, beta_fast = 32, beta_slow = 1;
  WrongRope wrong = {};
};
struct Attention {
  int layer = 0;
  double scale = 1;
  int window = 0;  // keys at pos - window + 1 .. pos are visible; 0 means all up to pos
  HeadMap map = HeadMap::grouped;
  WrongAttention wrong = {};
};
struct Glu {
  Act act;
  WrongGlu wrong = {};
};
struct Add {};
struct Scale {
  double factor;
};
// Of what one of several ranks computes (plan/split.h): all ranks' parts of a value side by side; and, of a
// value that every rank has, the elements from `first` on that are this one's.
struct Gather {
  std::vector<int> sizes;  // of every rank's part
};
struct Slice {
  int first;
};
using Op = std::variant<Embed, Linear, RmsNorm, Rope, Attention, Glu, Add, Scale, Gather, Slice>;

const char* name(const Op& op);

struct Node {
  Op op;
  std::vector<Value> in;
  Shape shape;
  std::string name;
  Here where;
  WrongNode wrong = {};
  std::shared_ptr<const Op> in_steps =
      {};  // a fault: what calls of one token compute instead; null: the same
};

struct WeightRef {
  std::string name;
  int64_t rows = 0, columns = 0;  // [rows, columns], rows = outputs; a vector has one row; rows = 0: absent
  Format format = Format::F32;
  const uint8_t* data = nullptr;  // as in the file; null where only shapes are known
  ReadRow read = {};              // a fault: how its rows are read; empty: as the format says
  int64_t whole_rows = 0;         // of the matrix of which these are some; 0: they are all
};

struct Program {
  std::string arch;
  int n_layer = 0, n_ctx_train = 0;
  std::vector<Node> nodes;
  std::vector<WeightRef> weights;  // each tensor once
  Value output = -1;
  WrongFeed feed = {};

  /// The value with that name, or -1.
  Value find(std::string_view name) const;
  const Shape& shape(Value v) const { return nodes[size_t(v)].shape; }
};

/// The Program as text: one line per node with its operands, shape and place in the model's source.
std::string print(const Program& program);

/// Where and what a Program carries that only a fault has, as "blk.0.attn: wrong.mask"; empty: nothing.
std::string fault_field(const Program& program);

}  // namespace plumb
