#include "plan/split.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace plumb {
namespace {

[[noreturn]] void refuse(const std::string& expected, const std::string& found) {
  throw Error({.code = "split.unsupported", .expected = expected, .found = found});
}

// A value of the whole Program among a rank's: all of it, this rank's part, or both.
struct Forms {
  Value whole = -1, part = -1;
  std::vector<int> first = {};  // of the parts: elements where each rank's begins, and the end
  bool partial() const { return whole < 0; }
};

class Splitter {
 public:
  Splitter(const Program& p, int rank, int ranks)
      : p_(p), rank_(rank), ranks_(ranks), forms_(p.nodes.size()), heads_(p.nodes.size()) {
    out_ = p;
    out_.nodes.clear();
    out_.weights.resize(2 * p.weights.size());
    for (const Node& n : p.nodes) {
      if (const auto* a = std::get_if<Attention>(&n.op)) mark_heads(n, *a);
    }
  }

  RankProgram run(const std::set<Value>& wanted) {
    for (Value v = 0; v < Value(p_.nodes.size()); ++v) {
      const Node& node = p_.nodes[size_t(v)];
      std::visit([&](const auto& op) { (*this)(v, node, op); }, node.op);
    }
    for (Value v : wanted) whole(v);
    out_.output = whole(p_.output);  // the last node, as in the whole Program
    RankProgram r;
    for (const Forms& f : forms_) r.whole.push_back(f.whole);
    r.program = std::move(out_);
    return r;
  }

 private:
  // How many heads of q, k and v go with one kv head, from attention back to the matrices.
  void mark_heads(const Node& attention, const Attention& op) {
    const int group = p_.shape(attention.in[0]).heads / p_.shape(attention.in[1]).heads;
    if (op.map != HeadMap::grouped) refuse("query heads beside their kv head", attention.name);
    for (int i = 0; i < 3; ++i) {
      Value v = attention.in[size_t(i)];
      for (;; v = p_.nodes[size_t(v)].in[0]) {
        heads_[size_t(v)] = i == 0 ? group : 1;
        const Op& of = p_.nodes[size_t(v)].op;
        if (std::holds_alternative<Linear>(of)) break;
        if (!std::holds_alternative<Rope>(of) && !std::holds_alternative<RmsNorm>(of))
          refuse("queries, keys and values from matrices of their own", p_.nodes[size_t(v)].name);
      }
    }
  }

  // Of `count` things, how many come before rank r's; the first ranks have one more where they do not divide.
  int before(int count, int r) const { return count / ranks_ * r + std::min(r, count % ranks_); }

  std::vector<int> cut(int count, int each, int all) const {
    std::vector<int> first;
    for (int r = 0; r < ranks_; ++r) first.push_back(before(count, r) * each);
    first.push_back(all);
    return first;
  }

  std::vector<int> cut_of(Value v) const {
    const Shape s = p_.shape(v);
    if (const int per = heads_[size_t(v)]; per > 0) {
      if (s.heads / per < ranks_) {
        throw Error({.code = "split.heads",
                     .expected = fmt::format("at least {} kv heads, one for each part of the model", ranks_),
                     .found = fmt::format("{} in {}", s.heads / per, p_.nodes[size_t(v)].name),
                     .remedy = "fewer devices or ranks"});
      }
      return cut(s.heads / per, per * s.dim, s.size());
    }
    if (s.heads > 1) refuse("heads that attention reads", p_.nodes[size_t(v)].name);
    int each = 32;  // what kernels like best
    while (each > 1 && s.dim / each < ranks_) each /= 2;
    if (s.dim < ranks_)
      refuse(fmt::format("at least {} rows", ranks_), fmt::format("{}", p_.nodes[size_t(v)].name));
    return cut(s.dim / each, each, s.dim);
  }

  Shape part_shape(Value v, const std::vector<int>& first) const {
    const int size = first[size_t(rank_) + 1] - first[size_t(rank_)], dim = p_.shape(v).dim;
    return heads_[size_t(v)] > 0 ? Shape{size / dim, dim} : Shape{1, size};
  }

  Value put(Op op, std::vector<Value> in, Shape shape, Value of, bool part) {
    const Node& node = p_.nodes[size_t(of)];
    const std::string name = part ? fmt::format("{}[{}/{}]", node.name, rank_ + 1, ranks_) : node.name;
    out_.nodes.push_back({std::move(op), std::move(in), shape, name, node.where});
    return Value(out_.nodes.size()) - 1;
  }
  void put_whole(Value v, Op op, std::vector<Value> in) {
    forms_[size_t(v)].whole = put(std::move(op), std::move(in), p_.shape(v), v, false);
  }
  void put_part(Value v, Op op, std::vector<Value> in, const std::vector<int>& first) {
    forms_[size_t(v)].part = put(std::move(op), std::move(in), part_shape(v, first), v, true);
    forms_[size_t(v)].first = first;
  }

  Value whole(Value v) {
    Forms& f = forms_[size_t(v)];
    if (f.whole >= 0) return f.whole;
    Gather g;
    for (size_t r = 0; r < size_t(ranks_); ++r) g.sizes.push_back(f.first[r + 1] - f.first[r]);
    return f.whole = put(std::move(g), {f.part}, p_.shape(v), v, false);
  }
  Value part(Value v, const std::vector<int>& first) {
    Forms& f = forms_[size_t(v)];
    if (f.part < 0) put_part(v, Slice{first[size_t(rank_)]}, {f.whole}, first);
    PLUMB_CHECK(f.first == first);
    return f.part;
  }

  // This rank's rows of a matrix, or its elements of a vector.
  Weight slice(Weight w, const std::vector<int>& first, bool vector) {
    if (w < 0) return -1;
    const Weight at = Weight(p_.weights.size()) + w;
    const WeightRef& all = p_.weights[size_t(w)];
    if (vector && info(all.format).block != 1)
      refuse("a bias in floating point", fmt::format("{} in {}", all.name, info(all.format).name));
    const int64_t from = first[size_t(rank_)], count = first[size_t(rank_) + 1] - from;
    WeightRef& ref = out_.weights[size_t(at)] = all;
    (vector ? ref.columns : ref.rows) = count;
    if (all.data) ref.data = all.data + from * row_bytes(all.format, vector ? 1 : all.columns);
    if (!vector) ref.whole_rows = all.rows;
    return at;
  }

  void operator()(Value v, const Node&, const Embed& op) { put_whole(v, op, {}); }
  void operator()(Value v, const Node& node, const Linear& op) {
    const std::vector<int> first = cut_of(v);
    put_part(v, Linear{slice(op.w, first, false), slice(op.bias, first, true)}, {whole(node.in[0])}, first);
  }
  // Of each head of a part, of every row, or of each element.
  template <class O>
  void one_input(Value v, const Node& node, const O& op, bool in_parts) {
    const Value x = node.in[0];
    const Forms& f = forms_[size_t(x)];
    if (in_parts && f.partial()) return put_part(v, op, {f.part}, std::vector<int>(f.first));
    put_whole(v, op, {whole(x)});
  }
  void operator()(Value v, const Node& node, const RmsNorm& op) {
    one_input(v, node, op, heads_[size_t(v)] > 0);
  }
  void operator()(Value v, const Node& node, const Rope& op) {
    one_input(v, node, op, heads_[size_t(v)] > 0);
  }
  void operator()(Value v, const Node& node, const Scale& op) { one_input(v, node, op, true); }
  void operator()(Value v, const Node& node, const Attention& op) {
    const auto in = [&](size_t i) { return forms_[size_t(node.in[i])].part; };
    put_part(v, op, {in(0), in(1), in(2)}, std::vector<int>(forms_[size_t(node.in[0])].first));
  }
  void operator()(Value v, const Node& node, const Glu& op) { two_inputs(v, node, op); }
  void operator()(Value v, const Node& node, const Add& op) { two_inputs(v, node, op); }
  // In parts if one of them is there in no other form.
  template <class O>
  void two_inputs(Value v, const Node& node, const O& op) {
    const Value a = node.in[0], b = node.in[1];
    const Value cut_by = forms_[size_t(b)].partial() ? b : a;
    if (!forms_[size_t(cut_by)].partial()) return put_whole(v, op, {whole(a), whole(b)});
    const std::vector<int> first = forms_[size_t(cut_by)].first;
    const Value x = part(a, first), y = part(b, first);
    put_part(v, op, {x, y}, first);
  }
  void operator()(Value, const Node& node, const Gather&) { refuse("a whole Program", node.name); }
  void operator()(Value, const Node& node, const Slice&) { refuse("a whole Program", node.name); }

  const Program& p_;
  const int rank_, ranks_;
  std::vector<Forms> forms_;  // by value
  std::vector<int> heads_;    // by value: its heads per kv head; 0: none that attention reads
  Program out_;
};

}  // namespace

RankProgram rank_program(const Program& program, int rank, int ranks, const std::set<Value>& wanted) {
  PLUMB_CHECK(rank >= 0 && rank < ranks);
  if (ranks == 1) {
    RankProgram same{program};
    for (Value v = 0; v < Value(program.nodes.size()); ++v) same.whole.push_back(v);
    return same;
  }
  if (const std::string field = fault_field(program); !field.empty())
    refuse("a Program without faults", field);
  return Splitter(program, rank, ranks).run(wanted);
}

}  // namespace plumb
