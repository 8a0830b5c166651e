#include "program/reference.h"

#include "base/error.h"
#include "program/dot.h"
#include "program/wrong_attention.h"

namespace plumb {

// One call of run(): the rows of every node computed so far.
template <class T>
struct Reference<T>::Call {
  Reference& self;
  std::span<const int> tokens;
  const Task* task;
  std::vector<std::vector<T>> rows;  // by node, [tokens, shape.size()]

  int n() const { return int(tokens.size()); }
  bool step() const { return n() == 1 && self.length_ > 0; }
  const T* row(Value v, int t) const { return rows[size_t(v)].data() + int64_t(t) * self.p_.shape(v).size(); }
  T* row(Value v, int t) { return rows[size_t(v)].data() + int64_t(t) * self.p_.shape(v).size(); }

  std::vector<T> weight_row(Weight w, int64_t r) const {
    const WeightRef& ref = self.p_.weights[size_t(w)];
    std::vector<float> decoded(static_cast<size_t>(ref.columns));
    read_row(ref, r, decoded.data());
    return std::vector<T>(decoded.begin(), decoded.end());
  }

  void compute(Value v) {
    const Node& node = self.p_.nodes[size_t(v)];
    std::vector<T>& out = rows[size_t(v)];
    out.resize(tokens.size() * size_t(node.shape.size()));
    if (!(task && task->give && task->give(v, out))) {
      const Op& op = step() && node.in_steps ? *node.in_steps : node.op;
      std::visit([&](const auto& o) { (*this)(node, v, o); }, op);
      if (!(node.wrong == WrongNode())) ops::apply<T>(node.wrong, node.shape.size(), self.length_, out);
    }
    if (self.round_) self.round_(out);
    if (self.arithmetic_.values == Rounded::none) return;
    for (int t = 0; t < n(); ++t)
      ops::round_all(self.arithmetic_.values, std::span(row(v, t), size_t(node.shape.size())));
  }

  void operator()(const Node& node, Value out, const Embed& op) {
    const int64_t all = self.p_.weights[size_t(op.table)].rows;
    for (int t = 0; t < n(); ++t) {
      const int64_t id = (tokens[size_t(t)] + op.wrong.id_offset) % all;
      const std::vector<T> w = weight_row(op.table, id < 0 ? id + all : id);
      std::copy(w.begin(), w.begin() + node.shape.size(), row(out, t));
    }
  }

  // What the matrix multiplies; `room` holds it where it is rounded.
  const T* inputs(const Linear& op, Value x, std::vector<T>& room) const {
    const Rounded profile = self.arithmetic_.inputs;
    if (profile == Rounded::none && op.wrong.input == Rounded::none && !op.wrong.block_sums_f16)
      return rows[size_t(x)].data();
    room = rows[size_t(x)];
    const size_t columns = size_t(self.p_.shape(x).size());
    for (size_t at = 0; at < room.size(); at += columns) {
      const std::span<T> r = std::span(room).subspan(at, columns);
      ops::round_all(profile, r), ops::round_all(op.wrong.input, r);
      for (size_t i = 0; i < columns && op.wrong.block_sums_f16; i += 32) {
        const auto block = r.subspan(i, std::min<size_t>(32, columns - i));
        T sum = 0;
        for (T v : block) sum += v;
        if (!std::isfinite(ops::rounded(Rounded::f16, sum)))
          block[0] = sum * std::numeric_limits<T>::infinity();
      }
    }
    return room.data();
  }

  // One product of a row and a token where it is not ops::dot.
  static T other_dot(InOrder order, const T* a, const T* b, int n) {
    T sum = 0;
    for (int step = 0; step < n; ++step) {
      const int i = order.from_end ? n - 1 - step : step;
      sum = ops::rounded(order.sums, sum + a[i] * b[i]);
    }
    return sum;
  }

  // y = w x^T.  w: [count, stride], x: [many, columns], y: [count, many].
  void products(const WrongLinear& wrong, const T* w, int count, int64_t stride, const T* x, int many,
                int columns, T* y) const {
    const bool from_end = self.arithmetic_.sums_from_end;
    const InOrder order{from_end ? Rounded::none : wrong.accumulator, from_end};
    const bool plain = order.sums == Rounded::none && !from_end;
    if constexpr (std::is_same_v<T, float>) {
      if (plain) return dot_rows(w, count, stride, x, many, columns, y);
      return dot_rows_in_order(order, w, count, stride, x, many, columns, y);
    }
    for (int i = 0; i < count * many; ++i) {
      const T *a = w + i / many * stride, *b = x + int64_t(i % many) * columns;
      y[i] = plain ? ops::dot(a, b, columns) : other_dot(order, a, b, columns);
    }
  }

  // Rows [first, first + count) of a weight, from `kept` if that is all of it.
  const T* weight_rows(int w, int first, int count, const float* kept, std::vector<T>& copy) {
    const int64_t columns = self.p_.weights[size_t(w)].columns;
    if constexpr (std::is_same_v<T, float>) {
      if (kept) return kept + first * columns;
    }
    copy.clear();
    for (int r = first; r < first + count; ++r) {
      if (kept) {
        copy.insert(copy.end(), kept + r * columns, kept + (r + 1) * columns);
      } else {
        const std::vector<T> row = weight_row(w, r);
        copy.insert(copy.end(), row.begin(), row.end());
      }
    }
    return copy.data();
  }

  void operator()(const Node& node, Value out, const Linear& op) {
    const int columns = self.p_.shape(node.in[0]).size();
    std::vector<T> room;
    const T* x = inputs(op, node.in[0], room);
    const std::vector<T> bias =
        op.bias >= 0 ? weight_row(op.bias, 0) : std::vector<T>(size_t(node.shape.size()));
    const WeightRef& ref = self.p_.weights[size_t(op.w)];
    const float* kept = self.decoded_ ? self.decoded_->get(ref, self.pool_) : nullptr;
    const bool last = task && task->last_logits_only && out == self.p_.output && node.wrong.row_shift == 0;
    const int first = last ? n() - 1 : 0, shown = n() - first, rows_of = node.shape.size();
    constexpr int kRows = 16;  // rows per unit of work
    self.pool_.each((rows_of + kRows - 1) / kRows, [&](int unit) {
      const int from = unit * kRows, count = std::min(kRows, rows_of - from);
      std::vector<T> copy, y(size_t(count * shown));
      const T* w = weight_rows(op.w, from, count, kept, copy);
      products(op.wrong, w, count, ref.columns, x + int64_t(first) * columns, shown, columns, y.data());
      for (int r = 0; r < count; ++r) {
        for (int t = 0; t < shown; ++t)
          row(out, first + t)[from + r] = y[size_t(r * shown + t)] + bias[size_t(from + r)];
      }
    });
  }

  void operator()(const Node& node, Value out, const RmsNorm& op) {
    const std::vector<T> g = weight_row(op.w, 0);
    if (!(op.wrong == WrongNorm())) {
      rows[size_t(out)] = rows[size_t(node.in[0])];
      return ops::norm_wrongly<T>(op, node.shape, g, rows[size_t(out)]);
    }
    for (int t = 0; t < n(); ++t) {
      for (int h = 0; h < node.shape.heads; ++h) {
        const int at = h * node.shape.dim;
        ops::rms_norm(row(node.in[0], t) + at, g.data(), node.shape.dim, T(op.eps), row(out, t) + at);
      }
    }
  }

  double position(const WrongRope& wrong, int t, int head) const {
    switch (wrong.position) {
      case PositionRule::right:
        break;
      case PositionRule::zero:
        return wrong.offset;
      case PositionRule::restarts:
        return (step() ? double(self.length_ - self.prompt_) : double(self.length_ + t)) + wrong.offset;
      case PositionRule::stuck:
        return (step() ? double(self.prompt_) : double(self.length_ + t)) + wrong.offset;
      case PositionRule::head:
        return head + wrong.offset;
    }
    return double(self.length_ + t) + wrong.offset;
  }

  void operator()(const Node& node, Value out, const Rope& op) {
    const std::vector<T> all = op.factors >= 0 ? weight_row(op.factors, 0) : std::vector<T>();
    const T* factors = op.factors >= 0 ? all.data() : nullptr;
    const bool right = op.wrong == WrongRope();
    for (int t = 0; t < n(); ++t) {
      for (int h = 0; h < node.shape.heads; ++h) {
        const T* x = row(node.in[0], t) + h * node.shape.dim;
        T* y = row(out, t) + h * node.shape.dim;
        if (right) {
          ops::rope(op, factors, self.length_ + t, node.shape.dim, x, y);
        } else {
          ops::rope_wrongly(op, factors, position(op.wrong, t, h), node.shape.dim, x, y);
        }
      }
    }
  }

  // Puts the keys and values of this call where they belong, or where a fault puts them.
  Cache& store(const Node& node, const Attention& op) {
    if (self.cache_.size() <= size_t(op.layer)) self.cache_.resize(size_t(op.layer) + 1);
    Cache& cache = self.cache_[size_t(op.layer)];
    const Shape kv = self.p_.shape(node.in[1]);
    std::vector<T> k = rows[size_t(node.in[1])], v = rows[size_t(node.in[2])];
    for (const Rounded r : {self.arithmetic_.cache, op.wrong.cache}) {
      ops::round_all(r, std::span(k)), ops::round_all(r, std::span(v));
    }
    if (op.wrong.v_transposed && n() > 1) {
      const std::vector<T> right = v;
      for (size_t i = 0; i < v.size(); ++i)
        v[i] = right[i % size_t(n()) * size_t(kv.size()) + i / size_t(n())];  // i counts [head, dim, token]
    }
    const size_t size = size_t(kv.size()), rows_now = cache.k.size() / size;
    if (step()) {
      if (op.wrong.slot == SlotRule::forgotten) cache.k.clear(), cache.v.clear();
      if (op.wrong.slot == SlotRule::overwrite && rows_now > size_t(cache.prompt_rows))
        cache.k.resize(cache.k.size() - size), cache.v.resize(cache.v.size() - size);
      if (op.wrong.slot == SlotRule::hole && rows_now == size_t(cache.prompt_rows))
        cache.k.resize(cache.k.size() + size), cache.v.resize(cache.v.size() + size);
    }
    cache.k.insert(cache.k.end(), k.begin(), k.end());
    cache.v.insert(cache.v.end(), v.begin(), v.end());
    if (!step()) cache.prompt_rows = int64_t(cache.k.size() / size);
    return cache;
  }

  void operator()(const Node& node, Value out, const Attention& op) {
    const Shape q = self.p_.shape(node.in[0]), kv = self.p_.shape(node.in[1]);
    Cache& cache = store(node, op);
    const int64_t keys = int64_t(cache.k.size()) / kv.size();
    const bool inner = task && !task->inner_of.empty() && task->inner_of[size_t(out)];
    if (inner || !(op.wrong == WrongAttention()) || keys != self.length_ + n())
      return attend_wrongly(node, out, op, cache, inner);
    self.pool_.each(n() * q.heads, [&](int unit) {
      const int t = unit / q.heads, h = unit % q.heads;
      const int kv_head = op.map == HeadMap::grouped ? h / (q.heads / kv.heads) : h % kv.heads;
      ops::attention(op, row(node.in[0], t) + h * q.dim, cache.k.data() + kv_head * kv.dim,
                     cache.v.data() + kv_head * kv.dim, kv.size(), self.length_ + t, q.dim,
                     row(out, t) + h * q.dim);
    });
  }

  void attend_wrongly(const Node& node, Value out, const Attention& op, Cache& cache, bool inner) {
    const Shape q = self.p_.shape(node.in[0]), kv = self.p_.shape(node.in[1]);
    const int64_t keys = int64_t(cache.k.size()) / kv.size();
    ops::AttentionCall<T> a{.op = op,
                            .q = q,
                            .kv = kv,
                            .tokens = n(),
                            .keys = keys,
                            .prompt = cache.prompt_rows,
                            .step = step(),
                            .queries = rows[size_t(node.in[0])],
                            .keys_in_cache = cache.k,
                            .values = cache.v};
    a.run(self.pool_, rows[size_t(out)]);
    if (inner) {
      task->see_inner(out, Inner::kq, keys, a.kq);
      task->see_inner(out, Inner::probs, keys, a.probs);
      task->see_inner(out, Inner::kqv, kv.dim, a.kqv);
    }
    if (!op.wrong.stores_fourth) return;
    const std::vector<T>& k = rows[size_t(node.in[3])];
    std::copy(k.begin(), k.end(), cache.k.end() - int64_t(k.size()));
  }

  void operator()(const Node& node, Value out, const Glu& op) {
    const std::vector<T>&gate = rows[size_t(node.in[0])], &up = rows[size_t(node.in[1])];
    for (size_t i = 0; i < gate.size(); ++i) rows[size_t(out)][i] = ops::glu(op, gate[i], up[i]);
  }

  void operator()(const Node& node, Value out, const Add&) {
    const std::vector<T>&a = rows[size_t(node.in[0])], &b = rows[size_t(node.in[1])];
    for (size_t i = 0; i < a.size(); ++i) rows[size_t(out)][i] = a[i] + b[i];
  }

  void operator()(const Node& node, Value out, const Scale& op) {
    const std::vector<T>& x = rows[size_t(node.in[0])];
    for (size_t i = 0; i < x.size(); ++i) rows[size_t(out)][i] = x[i] * T(op.factor);
  }

  void operator()(const Node& node, Value out, const Gather& op) {
    PLUMB_CHECK(self.comm_);
    all_gather_rows<T>(*self.comm_, row(node.in[0], 0), self.p_.shape(node.in[0]).size(), n(), op.sizes,
                       row(out, 0), node.shape.size());
  }

  void operator()(const Node& node, Value out, const Slice& op) {
    for (int t = 0; t < n(); ++t) std::copy_n(row(node.in[0], t) + op.first, node.shape.size(), row(out, t));
  }
};

template <class T>
void Reference<T>::run(std::span<const int> tokens, const Task& task) {
  const WrongFeed& feed = p_.feed;
  Task quiet = task;
  quiet.see = [](Value, std::span<const T>) {}, quiet.inner_of.clear(), quiet.give = {}, quiet.replace = {};
  PLUMB_CHECK(feed == WrongFeed() || (!task.give && !task.replace));
  if (feed.leftover > 0 && length_ == 0) {  // a prompt made of the ids of this one
    std::vector<int> before;
    for (int i = 0; i < feed.leftover; ++i) before.push_back(tokens[size_t(i * 7 + 3) % tokens.size()]);
    run_call(before, quiet);
    length_ = 0;
  }
  const bool step = tokens.size() == 1 && length_ > 0;
  if (step && feed.repeats_last && !stepped_) {
    const int last = last_token_;
    run_call({&last, 1}, quiet);
  }
  const int given = tokens.back(), before = last_token_;
  run_call(step && feed.lags ? std::span(&before, 1) : tokens, task);
  last_token_ = given, stepped_ = step;
  if (!step) prompt_ = length_;
}

template <class T>
void Reference<T>::run_call(std::span<const int> tokens, const Task& task) {
  const auto needed = [&](Value v) { return task.needed.empty() || task.needed[size_t(v)]; };
  std::vector<Value> last_use(p_.nodes.size());
  for (size_t i = 0; i < p_.nodes.size(); ++i) {
    if (!needed(Value(i))) continue;
    for (Value v : p_.nodes[i].in) last_use[size_t(v)] = Value(i);
  }
  Call call{*this, tokens, &task, std::vector<std::vector<T>>(p_.nodes.size())};
  for (Value v = 0; v <= task.until; ++v) {
    if (!needed(v)) continue;
    call.compute(v);
    task.see(v, call.rows[size_t(v)]);
    if (task.replace) task.replace(v, call.rows[size_t(v)]);
    for (Value in : p_.nodes[size_t(v)].in) {
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
  Call call{fresh, tokens, nullptr, std::vector<std::vector<T>>(program.nodes.size())};
  for (auto& [v, given] : rows) call.rows[size_t(v)] = std::move(given);
  for (Value v : nodes) {
    PLUMB_CHECK(first == 0 || !std::holds_alternative<Attention>(program.nodes[size_t(v)].op));
    call.compute(v);
    rows[v] = {};
  }
  for (auto& [v, given] : rows) given = std::move(call.rows[size_t(v)]);
}

template class Reference<float>;
template class Reference<double>;

}  // namespace plumb
