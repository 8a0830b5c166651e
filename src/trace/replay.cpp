#include "trace/replay.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "base/cancel.h"
#include "base/half.h"
#include "program/reference.h"

namespace plumb::trace {
namespace {

using Full = std::map<Value, std::vector<double>>;

class Replay {
 public:
  Replay(const Model& model, const Rows& rows, std::span<const int> tokens, int64_t positions)
      : model_(model), p_(model.program()), rows_(rows), tokens_(tokens.first(size_t(positions))) {}

  // What it would do to the operation to round the inputs that were recorded.
  double rounding_error(const Replayed& r, bool bf16) {
    const auto& op = p_.nodes[size_t(r.value)].op;
    if (bf16) {
      if (!std::holds_alternative<Attention>(op)) return 0;
      other_ = p_;
      std::get<Attention>(other_->nodes[size_t(r.value)].op).wrong.scores = Rounded::bf16;
      round_ = [](std::vector<double>&, int64_t) {};
    } else if (const auto* linear = std::get_if<Linear>(&op)) {
      const int64_t block =
          info(p_.weights[size_t(linear->w)].format).block == 256 ? 256 : 32;  // as llama.cpp
      round_ = [block](std::vector<double>& x, int64_t size) { round_blocks(x, size, block); };
    } else if (std::holds_alternative<Attention>(op)) {
      round_ = round_to_half;
    } else {
      return 0;
    }
    Comparison c(p_.nodes[size_t(r.value)].name, 1);
    pieces(r, c);
    round_ = nullptr, other_.reset();
    return c.result().error;
  }

  std::optional<Replayed> one(Value v) {
    const auto& out = recorded(v);
    if (out.empty()) return std::nullopt;
    Replayed r{v, segment(v), {}};
    if (r.segment.empty()) return std::nullopt;
    Comparison c(p_.nodes[size_t(v)].name, p_.shape(v).heads);
    pieces(r, c);
    r.difference = c.result();
    if (r.difference.tokens == 0) return std::nullopt;
    return r;
  }

 private:
  static constexpr int64_t kPiece = 64;  // positions at a time, where rows do not depend on each other

  const Rows::Positions& recorded(Value v) const {
    const auto& full = rows_.full(p_.nodes[size_t(v)].name);
    static const Rows::Positions kNone;
    return full.empty() || full.begin()->second.size() == p_.shape(v).size() ? full : kNone;
  }

  bool attends(const Replayed& r) const {
    return std::any_of(r.segment.begin(), r.segment.end(),
                       [&](Value n) { return std::holds_alternative<Attention>(p_.nodes[size_t(n)].op); });
  }

  void pieces(const Replayed& r, Comparison& c) const {
    const int64_t n = int64_t(tokens_.size()), most = attends(r) ? n : kPiece;
    for (int64_t first = 0; first < n; first += most) piece(r, first, std::min(most, n - first), c);
  }

  bool is_embed(Value v) const { return std::holds_alternative<Embed>(p_.nodes[size_t(v)].op); }

  // The nodes from what is recorded to v; empty if that leads back to the tokens over more than a few nodes.
  std::vector<Value> segment(Value v) const {
    std::set<Value> nodes = {v};
    std::vector<Value> open = {v};
    while (!open.empty()) {
      const Value at = open.back();
      open.pop_back();
      for (Value in : p_.nodes[size_t(at)].in) {
        if (recorded(in).empty() && nodes.insert(in).second) open.push_back(in);
      }
      if (nodes.size() > 12) return {};
    }
    return {nodes.begin(), nodes.end()};
  }

  // Whether every input of the segment has the row; attention asks for its keys' rows in `complete`.
  bool has_inputs(const std::vector<Value>& segment, int64_t position) const {
    for (Value node : segment) {
      for (Value in : p_.nodes[size_t(node)].in) {
        if (std::binary_search(segment.begin(), segment.end(), in)) continue;
        const auto& rows = recorded(in);
        const bool keys = std::holds_alternative<Attention>(p_.nodes[size_t(node)].op) &&
                          in != p_.nodes[size_t(node)].in[0];
        if (keys ? !complete(rows, position) : rows.count(position) == 0) return false;
      }
    }
    return true;
  }
  static bool complete(const Rows::Positions& rows, int64_t position) {
    const auto at = rows.find(position);
    return at != rows.end() && rows.begin()->first == 0 && std::distance(rows.begin(), at) == position;
  }

  // Rows that are missing stay zero; what they spoil is not compared.
  std::vector<double> input(Value v, int64_t first, int64_t count) const {
    const int64_t size = p_.shape(v).size();
    std::vector<double> x(size_t(count * size));
    const auto& rows = recorded(v);
    for (auto at = rows.lower_bound(first); at != rows.end() && at->first < first + count; ++at) {
      std::vector<double> row = rows_.row(at->second);
      if (const Gauge* gauge = rows_.gauge(p_.nodes[size_t(v)].name)) gauge->undo(row, row);
      std::copy(row.begin(), row.end(), x.begin() + (at->first - first) * size);
    }
    return x;
  }

  void piece(const Replayed& r, int64_t first, int64_t count, Comparison& c) const {
    const auto& out = recorded(r.value);
    std::vector<int64_t> wanted;
    for (auto at = out.lower_bound(first); at != out.end() && at->first < first + count; ++at) {
      if (has_inputs(r.segment, at->first)) wanted.push_back(at->first);
    }
    if (wanted.empty()) return;
    // Only the rows asked for, where no other row matters.
    if (!attends(r)) {
      count = wanted.back() + 1 - wanted.front(), first = wanted.front();
    }
    Full values;
    for (Value node : r.segment) {
      for (Value in : p_.nodes[size_t(node)].in) {
        if (!std::binary_search(r.segment.begin(), r.segment.end(), in) && !values.count(in))
          values[in] = input(in, first, count);
      }
    }
    const Full inputs = round_ ? values : Full();
    Reference<double>::evaluate(p_, model_.pool(), tokens_.subspan(size_t(first), size_t(count)), first,
                                r.segment, values);
    const int64_t size = p_.shape(r.value).size();
    if (round_) {
      Full rounded = inputs;
      for (auto& [v, x] : rounded) round_(x, p_.shape(v).size());
      Reference<double>::evaluate(other_ ? *other_ : p_, model_.pool(),
                                  tokens_.subspan(size_t(first), size_t(count)), first, r.segment, rounded);
      for (int64_t position : wanted) {
        const auto at = size_t((position - first) * size);
        c.add(position, std::span(rounded[r.value]).subspan(at, size_t(size)),
              std::span(values[r.value]).subspan(at, size_t(size)));
      }
      return;
    }
    for (int64_t position : wanted) {
      const auto ours = std::span(values[r.value]).subspan(size_t((position - first) * size), size_t(size));
      std::vector<double> theirs = rows_.row(out.at(position));
      if (const Gauge* gauge = rows_.gauge(p_.nodes[size_t(r.value)].name)) gauge->undo(theirs, ours);
      c.add(position, theirs, ours);
    }
  }

  // Each block of a row as integers up to 127 times one scale.
  static void round_blocks(std::vector<double>& x, int64_t size, int64_t block) {
    for (size_t row = 0; row < x.size(); row += size_t(size)) {
      for (int64_t at = 0; at < size; at += block) {
        const std::span<double> part(x.data() + row + size_t(at), size_t(std::min(block, size - at)));
        double most = 0;
        for (double v : part) most = std::max(most, std::abs(v));
        for (double& v : part) v = most > 0 ? std::round(v / most * 127) * most / 127 : 0;
      }
    }
  }

  static void round_to_half(std::vector<double>& x, int64_t) {
    for (double& v : x) v = half_to_float(float_to_half(float(v)));
  }

  // What piece() does to inputs, of rows of some size, to compare with itself; null: it compares with theirs.
  std::function<void(std::vector<double>&, int64_t)> round_;
  std::optional<Program> other_ = {};  // what it computes them with
  const Model& model_;
  const Program& p_;
  const Rows& rows_;
  std::span<const int> tokens_;
};

}  // namespace

std::vector<Replayed> replay(const Model& model, const Rows& rows, std::span<const int> tokens,
                             int64_t positions, std::atomic<bool>* cancel) {
  Replay work(model, rows, tokens, positions);
  std::vector<Replayed> out;
  for (Value v = 0; v <= model.program().output; ++v) {
    stop_if(cancel);
    if (std::optional<Replayed> r = work.one(v)) out.push_back(std::move(*r));
  }
  return out;
}

double rounding_error(const Model& model, const Rows& rows, std::span<const int> tokens, int64_t positions,
                      const Replayed& replayed, bool bf16) {
  if (replayed.segment.size() != 1) return 0;
  return Replay(model, rows, tokens, positions).rounding_error(replayed, bf16);
}

}  // namespace plumb::trace
