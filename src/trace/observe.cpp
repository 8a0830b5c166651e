#include "trace/observe.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/error.h"
#include "trace/edits.h"

namespace plumb::trace {
namespace {

constexpr int kElements = 16;       // taken of each full record
constexpr int kScaleElements = 48;  // computed beside them
constexpr int kNear = 2;            // layers on each side whose rounding is like a layer's own

ForeignRun run_of(const Trace& trace) {
  const Header& h = trace.header();
  if (h.tokens.empty()) {
    throw Error({.code = "trace.tokens",
                 .expected = "the token ids that the engine was fed, in input.tokens",
                 .found = "none",
                 .where = {.file = trace.path()},
                 .remedy = "'plumb check' runs the tests that need no ids"});
  }
  ForeignRun run{&trace, h.tokens, std::clamp<int64_t>(h.prompt, 1, int64_t(h.tokens.size())), {}};
  const int64_t all = std::accumulate(h.calls.begin(), h.calls.end(), int64_t(0));
  if (all == int64_t(h.tokens.size())) {
    run.calls.assign(h.calls.begin(), h.calls.end());
  } else {
    run.calls.assign(size_t(1 + int64_t(h.tokens.size()) - run.prompt), 1);
    run.calls[0] = int(run.prompt);
  }
  return run;
}

// Where the rows of a record lie; false: that cannot be told.
bool place_rows(const Record& r, const ForeignRun& run, Observed& o) {
  o.call = std::clamp(r.step, 0, int(run.calls.size()) - 1);
  const int64_t start = std::accumulate(run.calls.begin(), run.calls.begin() + o.call, int64_t(0));
  const int64_t count = run.calls[size_t(o.call)];
  o.last = r.last, o.first = start, o.tokens = count;
  if (r.last) {
    o.first = start + count - 1, o.tokens = 1;
  } else if (r.first >= 0) {
    o.first = r.first, o.tokens = std::max<int64_t>(r.tokens, 1);
    for (o.call = 0; o.call + 1 < int(run.calls.size()); ++o.call) {
      const int64_t end = std::accumulate(run.calls.begin(), run.calls.begin() + o.call + 1, int64_t(0));
      if (o.first < end) break;
    }
  } else if (r.token_id >= 0) {
    const auto at = std::find(run.tokens.begin(), run.tokens.end(), int(r.token_id));
    if (at == run.tokens.end()) return false;
    o.first = at - run.tokens.begin(), o.tokens = 1;
  }
  const int64_t begin = std::accumulate(run.calls.begin(), run.calls.begin() + o.call, int64_t(0));
  const int64_t all = run.calls[size_t(o.call)];
  o.last = o.last || (r.value == "logits" && o.tokens == 1 && o.first == begin + all - 1);
  o.whole_call = !o.last && o.first == begin && o.tokens == all;
  return o.first + o.tokens <= int64_t(run.tokens.size());
}

void add(Observed& o, Quantity::Kind kind, const std::optional<Number>& n, int64_t index = 0) {
  if (!n) return;
  o.what.push_back({kind, index}), o.numbers.push_back(*n);
}

void add_statistics(const Stats& s, Observed& o) {
  using Kind = Quantity::Kind;
  add(o, Kind::rms, s[Stat::rms]), add(o, Kind::min, s[Stat::min]), add(o, Kind::max, s[Stat::max]);
  const bool broken = (s[Stat::nan] && s[Stat::nan]->value > 0) || (s[Stat::inf] && s[Stat::inf]->value > 0);
  if (broken && o.numbers.empty()) add(o, Kind::rms, Number{NAN, 0});
  add(o, Kind::mean, s[Stat::mean]);
}

// Statistics of elements that are at hand.
void add_measured(std::span<const double> rows, Observed& o) {
  double squares = 0, least = INFINITY, most = -INFINITY;
  for (double x : rows) squares += x * x, least = std::min(least, x), most = std::max(most, x);
  add(o, Quantity::Kind::rms, Number{std::sqrt(squares / double(rows.size())), 0});
  add(o, Quantity::Kind::min, Number{least, 0}), add(o, Quantity::Kind::max, Number{most, 0});
}

// Elements of a full record: the same places for the same value and rows, whatever the numbers.
void add_elements(std::span<const double> rows, Observed& o) {
  uint32_t seed = 17;
  for (char c : o.value) seed = seed * 31 + uint8_t(c);
  std::mt19937 random(seed);
  for (int i = 0; i < kElements; ++i) {
    const auto at = size_t(random() % rows.size());
    o.what.push_back({Quantity::Kind::element, int64_t(at)}), o.numbers.push_back({rows[at], 0});
  }
}

bool is_descending(const Record& r) {
  if (r.samples.size() < 3) return false;
  for (size_t i = 1; i < r.samples.size(); ++i) {
    if (r.samples[i].second.value > r.samples[i - 1].second.value) return false;
  }
  return true;
}

// Log-probabilities are logits less a constant of their row: only samples of one row count, less their mean.
void add_shifted(const Record& r, int64_t size, Observed& o) {
  double sum = 0;
  for (const auto& [index, n] : r.samples) {
    if (index < size && std::isfinite(n.value)) add(o, Quantity::Kind::element, n, index), sum += n.value;
  }
  for (Number& n : o.numbers) n.value -= sum / double(o.numbers.size());
  o.shifted = true, o.top = is_descending(r);
}

void add_record(const Trace& trace, const Record& r, const std::string& gauge, int64_t size, Observed& o) {
  if (gauge == "logits_shift") {
    if (o.tokens == 1 && r.samples.size() > 1) add_shifted(r, size, o);
    return;
  }
  const bool elements = gauge.empty() && (r.dim == 0 || r.row_size() == size);
  if (r.full()) {
    const std::vector<double> rows = trace.rows(r, 0, r.tokens);
    if (!rows.empty()) add_measured(rows, o);
    if (!rows.empty() && elements) add_elements(rows, o);
    return;
  }
  add_statistics(r.stats, o);
  if (!elements) return;
  for (size_t i = 0; i < r.head8.size(); ++i) add(o, Quantity::Kind::element, r.head8[i], int64_t(i));
  const int64_t all = o.tokens * size;
  for (size_t i = 0; i < r.tail8.size(); ++i)
    add(o, Quantity::Kind::element, r.tail8[i], all - int64_t(r.tail8.size() - i));
  for (const auto& [index, n] : r.samples) {
    if (index < all) add(o, Quantity::Kind::element, n, index);
  }
  o.top = r.value == "logits" && o.tokens == 1 && is_descending(r);
}

// Rows at known positions by token, where a record has their sizes.
void add_token_sizes(const Record& r, const Observed& whole, std::vector<Observed>& out) {
  if (r.full() || int64_t(r.rms_per_token.size()) != whole.tokens || whole.tokens < 2) return;
  for (int64_t t = 0; t < whole.tokens; ++t) {
    Observed o = whole;
    o.what = {{Quantity::Kind::rms, 0}}, o.numbers = {r.rms_per_token[size_t(t)]};
    o.first += t, o.tokens = 1, o.whole_call = false, o.top = false;
    o.weight = 1 / double(whole.tokens);
    out.push_back(std::move(o));
  }
}

// What the engine chose after each row from the last of the prompt on.
void add_chosen(const ForeignRun& run, int index, const Program& program, Evidence& evidence) {
  Observed o;
  o.value = program.nodes[size_t(program.output)].name, o.run = index;
  o.first = run.prompt - 1, o.tokens = int64_t(run.tokens.size()) - run.prompt;
  o.chosen.assign(run.tokens.begin() + run.prompt, run.tokens.end());
  o.what = {{Quantity::Kind::element, 0}};  // for the scale of rounding
  if (o.tokens > 0) evidence.groups.push_back(std::move(o));
}

std::string gauge_of(const Record& r, const Header& h, const Represented& represented) {
  const auto found = represented.find(r.value);
  if (found != represented.end()) return found->second;
  const bool rotated = r.value.ends_with("q_rope") || r.value.ends_with("k_rope") ||
                       r.value.ends_with(".attn_q") || r.value.ends_with(".attn_k");
  for (const auto* list : {&r.gauges, &h.gauges}) {
    for (const std::string& g : *list) {
      if (list == &r.gauges || (g == "qk_halves" && rotated) || (g == "logits_shift" && r.value == "logits"))
        return g;
    }
  }
  return {};
}

}  // namespace

int64_t Evidence::numbers() const {
  int64_t n = 0;
  for (const Observed& o : groups) n += int64_t(o.numbers.size());
  return n;
}

bool Evidence::has_ids() const {
  return std::any_of(groups.begin(), groups.end(), [](const Observed& o) { return !o.chosen.empty(); });
}

bool has_elements(const Observed& group) {
  return std::any_of(group.what.begin(), group.what.end(),
                     [](const Quantity& q) { return q.kind == Quantity::Kind::element; });
}

bool is_alone(const Observed& group) { return group.near.size() < 2 && !has_elements(group); }

std::string_view kind_of(std::string_view value) {
  if (!value.starts_with("blk.")) return value;
  const size_t dot = value.find('.', 4);
  return dot == value.npos ? value : value.substr(dot + 1);
}

void observe(const Trace& trace, const Program& program, const Represented& represented, Evidence& evidence) {
  evidence.runs.push_back(run_of(trace));
  const ForeignRun& run = evidence.runs.back();
  std::vector<Observed> found;
  for (const Record& r : trace.records()) {
    const Value v = program.find(r.value);
    if (v < 0) continue;
    const std::string gauge = gauge_of(r, trace.header(), represented);
    if (gauge == "q_scaled" || gauge == "norm_unweighted") continue;
    Observed o;
    o.value = r.value, o.run = int(evidence.runs.size()) - 1, o.layer = layer_of(r.value);
    if (!place_rows(r, run, o)) continue;
    add_record(trace, r, gauge, program.shape(v).size(), o);
    add_token_sizes(r, o, found);
    if (!o.numbers.empty()) found.push_back(std::move(o));
  }
  std::stable_sort(found.begin(), found.end(), [&](const Observed& a, const Observed& b) {
    return std::pair(a.call, program.find(a.value)) < std::pair(b.call, program.find(b.value));
  });
  evidence.groups.insert(evidence.groups.end(), found.begin(), found.end());
  add_chosen(run, int(evidence.runs.size()) - 1, program, evidence);
}

void complete(const Program& program, Evidence& evidence) {
  std::vector<Observed>& groups = evidence.groups;
  const auto like = [](const Observed& a, const Observed& b) {
    return a.layer >= 0 && b.layer >= 0 && std::abs(a.layer - b.layer) <= kNear && a.run == b.run &&
           a.first == b.first && a.tokens == b.tokens && kind_of(a.value) == kind_of(b.value);
  };
  const size_t given = groups.size();
  for (size_t i = 0; i < given; ++i) {
    if (groups[i].layer < 0 || groups[i].what.size() < 2) continue;
    for (int l = std::max(0, groups[i].layer - kNear);
         l <= std::min(program.n_layer - 1, groups[i].layer + kNear); ++l) {
      Observed o = groups[i];
      o.layer = l, o.value = "blk." + std::to_string(l) + "." + std::string(kind_of(o.value));
      o.numbers.clear(), o.top = false;
      const bool known = std::any_of(groups.begin(), groups.end(), [&](const Observed& other) {
        return other.layer == l && like(other, o);
      });
      if (!known && program.find(o.value) >= 0) groups.push_back(std::move(o));
    }
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    Observed& g = groups[i];
    double told = 0;
    for (size_t j = 0; j < groups.size() && g.layer >= 0 && g.what.size() > 1; ++j) {
      if (!like(groups[j], g) || groups[j].what.size() < g.what.size()) continue;
      g.near.push_back(int(j)), told += groups[j].numbers.empty() ? 0 : 1;
    }
    if (g.near.empty()) g.near = {int(i)};
    g.weight /= std::max(told, 1.0);
  }
  for (Observed& g : groups) {
    const bool elements = has_elements(g);
    const int64_t all = g.tokens * program.shape(program.find(g.value)).size();
    for (int i = 0; i < kScaleElements && elements; ++i)
      g.what.push_back({Quantity::Kind::element, (i * 2654435761LL + 97) % all});
  }
}

}  // namespace plumb::trace
