#include "trace/inner.h"

#include <algorithm>
#include <cmath>

namespace plumb::trace {
namespace {

constexpr Inner kParts[] = {Inner::kq, Inner::probs, Inner::kqv};
constexpr std::string_view kSuffixes[] = {".kq", ".probs", ".kqv"};

double round_to(double (*format)(double), double x) { return format ? format(x) : x; }

int64_t first_visible(int64_t position, int window) {
  return window > 0 ? std::max<int64_t>(0, position - window + 1) : 0;
}

}  // namespace

std::optional<InnerValue> inner_value(std::string_view name) {
  for (Inner part : kParts) {
    const std::string_view end = kSuffixes[int(part)];
    if (name.ends_with(end) && name.substr(0, name.size() - end.size()).ends_with(".attn"))
      return InnerValue{std::string(name.substr(0, name.size() - end.size())), part};
  }
  return std::nullopt;
}

std::string inner_name(const std::string& attention, Inner part) {
  return attention + std::string(kSuffixes[int(part)]);
}

bool is_by_key(std::string_view name) {
  const auto inner = inner_value(name);
  return inner && inner->part != Inner::kqv;
}

AttentionRows::AttentionRows(const Program& program, Value attention, const Rows& rows, int64_t positions,
                             InnerFormats formats)
    : p_(program),
      rows_(rows),
      op_(std::get<Attention>(program.nodes[size_t(attention)].op)),
      query_(program.nodes[size_t(attention)].in[0]),
      q_shape_(program.shape(query_)),
      kv_shape_(program.shape(program.nodes[size_t(attention)].in[1])),
      q_(&rows.full(program.nodes[size_t(query_)].name)),
      formats_(formats) {
  const std::vector<Value>& in = program.nodes[size_t(attention)].in;
  const auto usable = [&](Value v) {
    const auto& all = rows.full(program.nodes[size_t(v)].name);
    return !all.empty() && all.begin()->second.size() == program.shape(v).size();
  };
  if (!usable(in[0]) || !usable(in[1]) || !usable(in[2])) return;
  for (; keys_ < positions; ++keys_) {
    const std::vector<double> k = input(in[1], keys_), v = input(in[2], keys_);
    if (k.empty() || v.empty()) break;
    for (double x : k) k_.push_back(round_to(formats_.in, x));
    for (double x : v) v_.push_back(round_to(formats_.in, x));
  }
}

std::vector<double> AttentionRows::input(Value v, int64_t position) const {
  const std::string& name = p_.nodes[size_t(v)].name;
  const auto& all = rows_.full(name);
  const auto at = all.find(position);
  if (at == all.end()) return {};
  std::vector<double> row = rows_.row(at->second);
  if (const Gauge* gauge = rows_.gauge(name)) gauge->undo(row, row);
  return row;
}

int AttentionRows::kv_head(int h) const {
  return op_.map == HeadMap::grouped ? h / (q_shape_.heads / kv_shape_.heads) : h % kv_shape_.heads;
}

std::vector<double> AttentionRows::kq(int64_t position) const {
  std::vector<double> q = input(query_, position);
  for (double& x : q) x = round_to(formats_.in, x);
  std::vector<double> scores(size_t(heads() * (position + 1)));
  for (int h = 0; h < heads(); ++h) {
    for (int64_t u = first_visible(position, op_.window); u <= position; ++u) {
      const double* k = k_.data() + u * kv_shape_.size() + kv_head(h) * kv_shape_.dim;
      double sum = 0;
      for (int j = 0; j < q_shape_.dim; ++j) sum += q[size_t(h * q_shape_.dim + j)] * k[j];
      scores[size_t(h * (position + 1) + u)] = round_to(formats_.out, sum);
    }
  }
  return scores;
}

std::vector<double> AttentionRows::probs(std::span<const double> kq, int64_t position) const {
  std::vector<double> out(size_t(heads() * (position + 2)));
  for (int h = 0; h < heads(); ++h) {
    const double* s = kq.data() + h * (position + 1);
    double* p = out.data() + h * (position + 2);
    double largest = -INFINITY, sum = 0;
    for (int64_t u = first_visible(position, op_.window); u <= position; ++u) {
      p[u] = round_to(formats_.out, s[u] * op_.scale);
      largest = std::max(largest, p[u]);
    }
    for (int64_t u = first_visible(position, op_.window); u <= position; ++u)
      sum += p[u] = std::exp(p[u] - largest);
    for (int64_t u = first_visible(position, op_.window); u <= position; ++u)
      p[u] = round_to(formats_.out, p[u] / sum);
  }
  return out;
}

std::vector<double> AttentionRows::kqv(std::span<const double> probs) const {
  std::vector<double> out(size_t(heads() * kv_shape_.dim));
  const int64_t width = int64_t(probs.size()) / heads();
  for (int h = 0; h < heads(); ++h) {
    double* y = out.data() + h * kv_shape_.dim;
    for (int64_t u = 0; u < std::min(width, keys_); ++u) {
      const double p = round_to(formats_.in, probs[size_t(h * width + u)]);
      if (p == 0) continue;
      const double* v = v_.data() + u * kv_shape_.size() + kv_head(h) * kv_shape_.dim;
      for (int j = 0; j < kv_shape_.dim; ++j) y[j] += p * v[j];
    }
    for (int j = 0; j < kv_shape_.dim; ++j) y[j] = round_to(formats_.out, y[j]);
  }
  return out;
}

std::vector<double> recorded_inner(const Rows& rows, const std::string& name, Inner part, int64_t position,
                                   int window) {
  const auto& all = rows.full(name);
  const auto at = all.find(position);
  if (at == all.end() || at->second.record->heads < 1) return {};
  std::vector<double> row = rows.row(at->second);
  if (part == Inner::kqv) return row;
  const int64_t heads = at->second.record->heads, keys = at->second.record->dim;
  if (keys <= position) return {};
  const int64_t width = position + (part == Inner::probs ? 2 : 1);
  std::vector<double> out(size_t(heads * width));
  for (int64_t h = 0; h < heads; ++h) {
    const double* x = row.data() + h * keys;
    for (int64_t u = 0; u < keys; ++u) {
      const bool visible = u <= position && u >= first_visible(position, window);
      if (visible) out[size_t(h * width + u)] = x[u];
      if (!visible && part == Inner::probs) out[size_t(h * width + position + 1)] += std::abs(x[u]);
    }
  }
  return out;
}

namespace {

// What takes the scale out of their scores again, where their queries hold it already (Gemma in llama.cpp): 1
// or 1 / scale, whichever brings the scores of the first few tokens nearer to ours.
class ScoreGauge {
 public:
  explicit ScoreGauge(double scale) : factor_(1 / scale) {}

  void see(std::span<const double> theirs, std::span<const double> ours) {
    if (theirs.size() != ours.size()) return;
    for (size_t i = 0; i < theirs.size(); ++i) {
      plain_ += std::pow(theirs[i] - ours[i], 2);
      scaled_ += std::pow(theirs[i] * factor_ - ours[i], 2);
    }
  }
  bool found() const { return scaled_ < plain_; }
  void undo(std::vector<double>& theirs) const {
    if (!found()) return;
    for (double& x : theirs) x *= factor_;
  }

 private:
  double factor_, plain_ = 0, scaled_ = 0;
};

constexpr int kGaugeTokens = 8;

// `ours_at(position)`: our scores for a token; empty: none.
template <class OursAt>
ScoreGauge score_gauge(const Attention& op, const Rows& theirs, const std::string& attention,
                       int64_t positions, const OursAt& ours_at) {
  ScoreGauge gauge(op.scale);
  const std::string name = inner_name(attention, Inner::kq);
  int seen = 0;
  for (const auto& [position, at] : theirs.full(name)) {
    if (position >= positions || seen == kGaugeTokens) break;
    const std::vector<double> y = ours_at(position);
    if (y.empty()) continue;
    gauge.see(recorded_inner(theirs, name, Inner::kq, position, op.window), y);
    ++seen;
  }
  return gauge;
}

}  // namespace

std::vector<Difference> compare_inner(const Program* program, const Rows& theirs, const Rows& ours,
                                      const std::string& attention, int64_t positions) {
  std::vector<Difference> out;
  const Value node = program ? program->find(attention) : -1;
  std::optional<AttentionRows> right;
  for (Inner part : kParts) {
    const std::string name = inner_name(attention, part);
    const auto& recorded = theirs.full(name);
    if (recorded.empty()) continue;
    const bool computed = ours.full(name).empty();
    if (computed && node < 0) continue;
    if (computed && !right) {
      const int64_t most = std::min(positions, recorded.last().first + 1);
      right.emplace(*program, node, ours, most);
    }
    const Attention op = node >= 0 ? std::get<Attention>(program->nodes[size_t(node)].op) : Attention{};
    const auto ours_at = [&](int64_t position) {
      if (!computed) return recorded_inner(ours, name, part, position, op.window);
      if (!right->has(position)) return std::vector<double>();
      std::vector<double> y = right->kq(position);
      if (part != Inner::kq) y = right->probs(y, position);
      return part == Inner::kqv ? right->kqv(y) : y;
    };
    ScoreGauge gauge(1);
    if (node >= 0 && part == Inner::kq) gauge = score_gauge(op, theirs, attention, positions, ours_at);
    Comparison c(name, recorded.begin()->second.record->heads);
    for (const auto& [position, at] : recorded) {
      if (position >= positions) continue;
      std::vector<double> x = recorded_inner(theirs, name, part, position, op.window);
      const std::vector<double> y = ours_at(position);
      if (x.empty() || x.size() != y.size()) continue;
      gauge.undo(x);
      c.add(position, x, y);
    }
    Difference d = c.result();
    if (gauge.found()) d.gauge = "q_scaled";
    if (d.tokens > 0) out.push_back(std::move(d));
  }
  return out;
}

namespace {

// A part from the one before it, where that was recorded.
std::vector<double> replayed(const AttentionRows& right, const ScoreGauge& gauge, const Rows& rows,
                             const std::string& attention, Inner part, int64_t position) {
  if (part == Inner::kq) return right.kq(position);
  if (part == Inner::kqv) {
    const auto& all = rows.full(inner_name(attention, Inner::probs));
    const auto at = all.find(position);  // as it is: weight of hidden keys adds their values
    return right.kqv(at != all.end() ? rows.row(at->second)
                                     : replayed(right, gauge, rows, attention, Inner::probs, position));
  }
  std::vector<double> scores =
      recorded_inner(rows, inner_name(attention, Inner::kq), Inner::kq, position, right.window());
  gauge.undo(scores);
  if (scores.empty()) scores = right.kq(position);
  return right.probs(scores, position);
}

}  // namespace

void replay_inner(const Model& model, const Rows& rows, int64_t positions,
                  std::vector<Replayed>& operations) {
  const Program& p = model.program();
  std::vector<Replayed> all;
  for (Replayed& whole : operations) {
    const Node& node = p.nodes[size_t(whole.value)];
    const auto recorded = [&](Inner part) -> const auto& { return rows.full(inner_name(node.name, part)); };
    const bool any = std::holds_alternative<Attention>(node.op) && whole.segment.size() == 1 &&
                     std::any_of(std::begin(kParts), std::end(kParts),
                                 [&](Inner part) { return !recorded(part).empty(); });
    if (any) {
      const AttentionRows right(p, whole.value, rows, positions);
      const ScoreGauge gauge = score_gauge(
          std::get<Attention>(node.op), rows, node.name, positions,
          [&](int64_t position) { return right.has(position) ? right.kq(position) : std::vector<double>(); });
      for (Inner part : kParts) {
        const std::string name = inner_name(node.name, part);
        Comparison c(name, right.heads());
        for (const auto& [position, at] : recorded(part)) {
          if (position >= positions || !right.has(position)) continue;
          std::vector<double> theirs = recorded_inner(rows, name, part, position, right.window());
          if (part == Inner::kq) gauge.undo(theirs);
          const std::vector<double> x = replayed(right, gauge, rows, node.name, part, position);
          if (theirs.size() == x.size()) c.add(position, theirs, x);
        }
        Replayed r{whole.value, {whole.value}, c.result()};
        if (r.difference.tokens > 0) all.push_back(std::move(r));
      }
    }
    all.push_back(std::move(whole));
  }
  operations = std::move(all);
}

}  // namespace plumb::trace
