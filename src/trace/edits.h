// What edits of the fault catalogue are made of.
#pragma once

#include <memory>
#include <mutex>

#include "trace/faults.h"

namespace plumb::trace {

/// "attn_q" of "blk.3.attn_q" or "blk.3.attn_q.weight"; other names without ".weight".
std::string short_name(std::string_view name);
/// "attn_q attn_k" holds "attn_q"; "*" holds all.
bool listed(std::string_view list, std::string_view short_name);
/// 3 of "blk.3.attn_q"; -1 where there is none.
int layer_of(std::string_view name);

/// Changes all operations of a kind whose node's short name is listed; how many.
template <class O, class F>
int each(Program& p, std::string_view list, F change) {
  int n = 0;
  for (Node& node : p.nodes) {
    O* op = std::get_if<O>(&node.op);
    if (op && listed(list, short_name(node.name))) change(*op, node), ++n;
  }
  return n;
}

/// The edit that changes operations so, and does not apply where there is none.
template <class O, class F>
Edit on(std::string list, F change) {
  return [list, change](Variant& v, double) -> std::string {
    if (each<O>(v.program, list, [&](O& op, Node&) { change(op); }) > 0) return {};
    return "the model has no such operation";
  };
}
/// The same with the fault's parameter.
template <class O, class F>
Edit on_with(std::string list, F change) {
  return [list, change](Variant& v, double parameter) -> std::string {
    if (each<O>(v.program, list, [&](O& op, Node&) { change(op, parameter); }) > 0) return {};
    return "the model has no such operation";
  };
}
/// What happens to rows after their node.
Edit after(std::string list, std::function<void(WrongNode&, double parameter)> change);

/// The same operations wrong in steps only.
Edit in_steps(Edit edit);

Edit both(Edit a, Edit b);
/// The edit where `condition` gives no reason against it.
Edit where(std::function<std::string(const Variant&)> condition, Edit edit);

/// A node of the layer by its short name, or -1.
Value node_of(const Program& p, int layer, std::string_view short_name);
/// The nodes with that short name, ascending.
std::vector<Value> nodes_named(const Program& p, std::string_view short_name);
/// Inserts a node behind v, which takes over v's readers and its name; v is called "<name>.before".
Value insert_behind(Program& p, Value v, Op op);

// Weights. An element is counted row by row.

/// Decoded tensors shared by the readers of one edit: the two used last are kept.
class Tensors {
 public:
  std::shared_ptr<const std::vector<float>> get(const WeightRef& w);

 private:
  std::mutex mutex_;
  std::vector<std::pair<const uint8_t*, std::shared_ptr<const std::vector<float>>>> kept_;
};

/// Which element of `w` stands where element (row, column) is wanted.
using SourceElement = std::function<int64_t(const WeightRef& w, int64_t row, int64_t column)>;
using SourceRow = std::function<int64_t(const WeightRef& w, int64_t row)>;
/// The source of a column in units of heads of a row, or of columns.
using SourceColumn = std::function<int64_t(const WeightRef& w, int64_t column)>;

/// Weights of the list, "head" for the matrix that gives the logits. Each throws nothing and returns a
/// reason.
std::string read_elements(Variant& v, std::string_view list, SourceElement source);
std::string read_rows(Variant& v, std::string_view list, SourceRow source);
std::string read_columns(Variant& v, std::string_view list, SourceColumn source);
/// Each number x of a row becomes f(x).
std::string read_changed(Variant& v, std::string_view list, std::function<float(float)> change);
/// Whatever the function makes of a row.
std::string read_with(Variant& v, std::string_view list, ReadRow read);
/// Another weight of the same shape instead: `choose` gives its name, or "" for the same.
std::string read_other(Variant& v, std::string_view list,
                       std::function<std::string(const WeightRef&)> choose);

/// The weights of a list that some node uses. A tied head becomes a weight of its own, "output.weight".
std::vector<Weight> weights_of(Variant& v, std::string_view list);
/// The weight with that name, or null.
const WeightRef* weight_named(const Program& p, std::string_view name);

/// Rows of q and k (and their biases and norms) within each head: element j of a head is what stands at
/// source(dims, j) of the `dims` elements that turn.
Edit qk_rows(std::function<int(int dims, int j)> source, std::string list = "attn_q attn_k");
/// q so that scores are multiplied by a number: its norm where it has one, else its matrix and bias.
std::string scale_q(Variant& v, double factor);
/// Whether attention of that layer sees a window.
bool is_local(const Program& p, int layer);
/// A condition for `where`: empty if some layer has a window.
std::string has_window(const Variant& v);

/// Sizes that the Program shows: 0 where it has no such thing.
struct Sizes {
  int n_embd = 0, n_head = 0, n_head_kv = 0, head_dim = 0, n_ff = 0, n_vocab = 0, rope_dims = 0;
  bool tied = false;
};
Sizes sizes_of(const Variant& v);

/// <arch>.<key> of the file becomes a number.
void set_key(Variant& v, const std::string& key, double value);
void set_key_integer(Variant& v, const std::string& key, int64_t value);
void drop_key(Variant& v, const std::string& key);

/// A fault whose edit a file can carry as it is.
inline Fault carried(Fault f) {
  f.poison = f.edit;
  return f;
}

}  // namespace plumb::trace
