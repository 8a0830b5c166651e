#include "program/reference.h"

#include "base/error.h"
#include "program/ops.h"

namespace plumb {

// One call of run(): the rows of every node computed so far.
template <class T>
struct Reference<T>::Call {
  Reference& self;
  std::span<const int> tokens;
  std::vector<std::vector<T>> rows;  // by node, [tokens, shape.size()]

  int n() const { return int(tokens.size()); }
  const T* row(Value v, int t) const { return rows[size_t(v)].data() + int64_t(t) * self.p_.shape(v).size(); }
  T* row(Value v, int t) { return rows[size_t(v)].data() + int64_t(t) * self.p_.shape(v).size(); }

  std::vector<T> weight_row(Weight w, int64_t r) const {
    const WeightRef& ref = self.p_.weights[size_t(w)];
    std::vector<float> decoded(static_cast<size_t>(ref.columns));
    decode(ref.format, ref.data + r * row_bytes(ref.format, ref.columns), ref.columns, decoded.data());
    return std::vector<T>(decoded.begin(), decoded.end());
  }

  void operator()(const Node& node, Value out, const Embed& op) {
    for (int t = 0; t < n(); ++t) {
      const std::vector<T> w = weight_row(op.table, tokens[size_t(t)]);
      std::copy(w.begin(), w.begin() + node.shape.size(), row(out, t));
    }
  }

  void operator()(const Node& node, Value out, const Linear& op) {
    const Value x = node.in[0];
    const int columns = self.p_.shape(x).size();
    const std::vector<T> bias =
        op.bias >= 0 ? weight_row(op.bias, 0) : std::vector<T>(size_t(node.shape.size()));
    constexpr int kRows = 16;  // rows per unit of work
    self.pool_.each((node.shape.size() + kRows - 1) / kRows, [&](int unit) {
      for (int r = unit * kRows; r < std::min((unit + 1) * kRows, node.shape.size()); ++r) {
        const std::vector<T> w = weight_row(op.w, r);
        for (int t = 0; t < n(); ++t)
          row(out, t)[r] = ops::dot(w.data(), row(x, t), columns) + bias[size_t(r)];
      }
    });
  }

  void operator()(const Node& node, Value out, const RmsNorm& op) {
    const std::vector<T> g = weight_row(op.w, 0);
    for (int t = 0; t < n(); ++t) {
      for (int h = 0; h < node.shape.heads; ++h) {
        const int at = h * node.shape.dim;
        ops::rms_norm(row(node.in[0], t) + at, g.data(), node.shape.dim, T(op.eps), row(out, t) + at);
      }
    }
  }

  void operator()(const Node& node, Value out, const Rope& op) {
    const std::vector<T> factors = op.factors >= 0 ? weight_row(op.factors, 0) : std::vector<T>();
    for (int t = 0; t < n(); ++t) {
      for (int h = 0; h < node.shape.heads; ++h) {
        const int at = h * node.shape.dim;
        ops::rope(op, op.factors >= 0 ? factors.data() : nullptr, self.length_ + t, node.shape.dim,
                  row(node.in[0], t) + at, row(out, t) + at);
      }
    }
  }

  void operator()(const Node& node, Value out, const Attention& op) {
    const Shape q = self.p_.shape(node.in[0]), kv = self.p_.shape(node.in[1]);
    if (self.cache_.size() <= size_t(op.layer)) self.cache_.resize(size_t(op.layer) + 1);
    Cache& cache = self.cache_[size_t(op.layer)];
    cache.k.insert(cache.k.end(), rows[size_t(node.in[1])].begin(), rows[size_t(node.in[1])].end());
    cache.v.insert(cache.v.end(), rows[size_t(node.in[2])].begin(), rows[size_t(node.in[2])].end());
    self.pool_.each(n() * q.heads, [&](int unit) {
      const int t = unit / q.heads, h = unit % q.heads;
      const int kv_head = op.map == HeadMap::grouped ? h / (q.heads / kv.heads) : h % kv.heads;
      ops::attention(op, row(node.in[0], t) + h * q.dim, cache.k.data() + kv_head * kv.dim,
                     cache.v.data() + kv_head * kv.dim, kv.size(), self.length_ + t, q.dim,
                     row(out, t) + h * q.dim);
    });
  }

  void operator()(const Node& node, Value out, const Glu& op) {
    const std::vector<T>&gate = rows[size_t(node.in[0])], &up = rows[size_t(node.in[1])];
    for (size_t i = 0; i < gate.size(); ++i) rows[size_t(out)][i] = ops::activate(op.act, gate[i]) * up[i];
  }

  void operator()(const Node& node, Value out, const Add&) {
    const std::vector<T>&a = rows[size_t(node.in[0])], &b = rows[size_t(node.in[1])];
    for (size_t i = 0; i < a.size(); ++i) rows[size_t(out)][i] = a[i] + b[i];
  }

  void operator()(const Node& node, Value out, const Scale& op) {
    const std::vector<T>& x = rows[size_t(node.in[0])];
    for (size_t i = 0; i < x.size(); ++i) rows[size_t(out)][i] = x[i] * T(op.factor);
  }
};

template <class T>
void Reference<T>::run(std::span<const int> tokens, Value until, const See& see) {
  std::vector<Value> last_use(p_.nodes.size());
  for (size_t i = 0; i < p_.nodes.size(); ++i) {
    for (Value v : p_.nodes[i].in) last_use[size_t(v)] = Value(i);
  }
  Call call{*this, tokens, std::vector<std::vector<T>>(p_.nodes.size())};
  for (Value v = 0; v <= until; ++v) {
    const Node& node = p_.nodes[size_t(v)];
    call.rows[size_t(v)].resize(tokens.size() * size_t(node.shape.size()));
    std::visit([&](const auto& op) { call(node, v, op); }, node.op);
    if (round_) round_(call.rows[size_t(v)]);
    see(v, call.rows[size_t(v)]);
    for (Value in : node.in) {
      if (last_use[size_t(in)] == v) std::vector<T>().swap(call.rows[size_t(in)]);
    }
  }
  length_ += int64_t(tokens.size());
}

template <class T>
void Reference<T>::evaluate(const Program& program, Pool& pool, std::span<const int> tokens, int64_t first,
                            std::span<const Value> nodes, std::map<Value, std::vector<T>>& rows) {
  Reference fresh(program, pool);
  fresh.length_ = first;
  Call call{fresh, tokens, std::vector<std::vector<T>>(program.nodes.size())};
  for (auto& [v, given] : rows) call.rows[size_t(v)] = std::move(given);
  for (Value v : nodes) {
    const Node& node = program.nodes[size_t(v)];
    PLUMB_CHECK(first == 0 || !std::holds_alternative<Attention>(node.op));
    call.rows[size_t(v)].resize(tokens.size() * size_t(node.shape.size()));
    std::visit([&](const auto& op) { call(node, v, op); }, node.op);
    rows[v] = {};
  }
  for (auto& [v, given] : rows) given = std::move(call.rows[size_t(v)]);
}

template class Reference<float>;
template class Reference<double>;

}  // namespace plumb
