#include "trace/predict.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace plumb::trace {
namespace {

constexpr size_t kOthers = 40;  // largest elements beside a printed top that are kept

bool changes_text(const Variant& v) {
  const TextOptions& o = v.text;
  return o.extra_bos > 0 || o.flips_special || o.newline_is_space || o.drops_control || o.drops_turn ||
         o.drops_last || o.appends_eos ||
         std::any_of(v.metadata.begin(), v.metadata.end(),
                     [](const MetadataEdit& e) { return e.key.starts_with("tokenizer."); });
}

// The text of a prompt, if our own tokenizer makes the same ids of it.
bool text_of(const Tokenizer& tokenizer, std::vector<int> ids, std::string& text, EncodeOptions& options) {
  const std::vector<int> all = ids;
  options = {.add_special = !ids.empty() && ids[0] == tokenizer.bos() && tokenizer.adds_bos(),
             .parse_special = true};
  if (options.add_special) ids.erase(ids.begin());
  for (const int id : ids) {
    if (id < 0 || id >= tokenizer.size()) return false;
  }
  text = tokenizer.decode(ids, true);
  return tokenizer.encode(text, options) == all;
}

// Fills in the groups of one run from the rows that it shows.
class Filler {
 public:
  // `shift`: by how many positions the prompt is longer than the foreign one. `calls`: their rows, where all
  // are run in one; else empty.
  Filler(const Evidence& evidence, int run, int64_t shift, std::vector<int> calls, Prediction& out)
      : evidence_(evidence), shift_(shift), calls_(std::move(calls)), out_(out) {
    for (size_t g = 0; g < evidence.groups.size(); ++g) {
      if (evidence.groups[g].run == run && out[g].computed) by_value_[evidence.groups[g].value].push_back(g);
    }
    sums_.resize(evidence.groups.size());
  }

  void see(const VariantRows& rows) {
    const auto at = by_value_.find(std::string(rows.value));
    if (at == by_value_.end()) return;
    for (const size_t g : at->second) take(g, rows);
  }

  void finish() {
    for (const auto& [value, groups] : by_value_) {
      for (const size_t g : groups) statistics(g);
    }
  }

 private:
  struct Sums {
    double squares = 0, sum = 0, least = INFINITY, most = -INFINITY;
    int64_t n = 0;
    bool broken = false;
  };

  void take(size_t g, const VariantRows& rows) {
    const Observed& o = evidence_.groups[g];
    int64_t first = o.first, count = o.tokens;
    if (o.whole_call || o.last) {
      if (calls_.empty()) {
        if (rows.call != o.call) return;
        first = rows.first, count = rows.rows;
      } else {
        first = std::accumulate(calls_.begin(), calls_.begin() + o.call, int64_t(0));
        count = calls_[size_t(o.call)];
      }
      if (o.last) first += count - 1, count = 1;
    } else if (o.call > 0 || !o.chosen.empty()) {
      first += shift_;
    }
    const int64_t size = int64_t(rows.data.size()) / rows.rows;
    const int64_t from = std::max(first, rows.first), to = std::min(first + count, rows.first + rows.rows);
    if (from >= to) return;
    const auto part = rows.data.subspan(size_t((from - rows.first) * size), size_t((to - from) * size));
    Sums& s = sums_[g];
    for (double x : part) {
      s.broken = s.broken || !std::isfinite(x);
      s.squares += x * x, s.sum += x, s.least = std::min(s.least, x), s.most = std::max(s.most, x);
    }
    s.n += int64_t(part.size());
    for (int64_t row = from; row < to && !o.chosen.empty(); ++row)
      out_[g].margins.push_back(
          margin(part.subspan(size_t((row - from) * size), size_t(size)), o.chosen[size_t(row - first)]));
    const int64_t offset = (from - first) * size;
    for (size_t i = 0; i < o.what.size(); ++i) {
      const int64_t index = o.what[i].index - offset;
      if (o.what[i].kind == Quantity::Kind::element && index >= 0 && index < int64_t(part.size()))
        out_[g].x[i] = part[size_t(index)];
    }
    if (o.top || o.shifted) complete_row(o, part, out_[g]);
  }

  static double margin(std::span<const double> row, int chosen) {
    if (chosen < 0 || size_t(chosen) >= row.size()) return -INFINITY;
    // Where all are NaN, engines that look for the largest say the first id (M1).
    if (std::isnan(row[0]) && std::isnan(row[row.size() - 1])) return chosen == 0 ? INFINITY : -INFINITY;
    double most = -INFINITY;
    for (size_t i = 0; i < row.size(); ++i) {
      if (int(i) != chosen && row[i] > most) most = row[i];
    }
    return row[size_t(chosen)] - most;
  }

  void statistics(size_t g) {
    const Sums& s = sums_[g];
    if (s.n == 0) return;
    const double nan = std::numeric_limits<double>::quiet_NaN(), n = double(s.n);
    out_[g].size = std::sqrt(s.squares / n);
    const Observed& o = evidence_.groups[g];
    for (size_t i = 0; i < o.what.size(); ++i) {
      double& x = out_[g].x[i];
      switch (o.what[i].kind) {
        case Quantity::Kind::element:
          break;
        case Quantity::Kind::rms:
          x = s.broken ? nan : out_[g].size;
          break;
        case Quantity::Kind::mean:
          x = s.broken ? nan : s.sum / n;
          break;
        case Quantity::Kind::min:
          x = s.broken ? nan : s.least;
          break;
        case Quantity::Kind::max:
          x = s.broken ? nan : s.most;
          break;
      }
    }
  }

  const Evidence& evidence_;
  int64_t shift_;
  std::vector<int> calls_;
  Prediction& out_;
  std::map<std::string, std::vector<size_t>> by_value_;
  std::vector<Sums> sums_;
};

// Whether a call of several tokens and as many steps may differ by more than rounding.
bool needs_steps(const Program& p) {
  if (!(p.feed == WrongFeed())) return true;
  return std::any_of(p.nodes.begin(), p.nodes.end(), [](const Node& n) {
    if (n.in_steps || n.wrong.row_shift != 0) return true;
    if (const auto* a = std::get_if<Attention>(&n.op)) {
      const WrongAttention& w = a->wrong;
      return w.mask != MaskRule::causal || w.masked != MaskedScore::infinite || w.axis != SoftmaxAxis::keys ||
             w.v_transposed || w.slot != SlotRule::append || w.view != CacheView::right || w.stores_fourth ||
             w.merge != MergeOrder::right;
    }
    if (const auto* r = std::get_if<Rope>(&n.op)) return r->wrong.position != PositionRule::right;
    const auto* norm = std::get_if<RmsNorm>(&n.op);
    return norm && norm->wrong.formula == NormFormula::all_rows;
  });
}

// The prompt and what was generated, up to so many tokens; the last one need not be fed.
void cut(VariantRun& run, int64_t fed, int64_t prompt) {
  fed = std::max(prompt, fed - 1);
  run.tokens.resize(size_t(fed));
  run.calls.assign(size_t(1 + fed - prompt), 1);
  run.calls[0] = int(prompt);
}

// To f32, as the cache keeps them.
void to_f32(Prediction& p) {
  for (PredictedGroup& g : p) {
    g.size = double(float(g.size));
    for (auto* list : {&g.x, &g.others, &g.margins}) {
      for (double& x : *list) x = double(float(x));
    }
  }
}

}  // namespace

void complete_row(const Observed& group, std::span<const double> row, PredictedGroup& out) {
  if (group.top) {
    std::vector<double> rest(row.begin(), row.end());
    for (size_t i = 0; i < group.numbers.size(); ++i) {
      if (group.what[i].kind == Quantity::Kind::element && size_t(group.what[i].index) < rest.size())
        rest[size_t(group.what[i].index)] = -INFINITY;
    }
    for (double& x : rest) x = std::isnan(x) ? -INFINITY : x;
    const size_t n = std::min(kOthers, rest.size());
    std::partial_sort(rest.begin(), rest.begin() + int64_t(n), rest.end(), std::greater<>());
    out.others.assign(rest.begin(), rest.begin() + int64_t(n));
  }
  if (!group.shifted) return;
  double sum = 0;
  for (size_t i = 0; i < group.numbers.size(); ++i) sum += out.x[i];
  const double mean = sum / double(group.numbers.size());
  for (double& x : out.x) x -= mean;
  for (double& x : out.others) x -= mean;
}

bool within(const Observed& group, int depth, int n_layer) {
  return group.layer >= 0 ? group.layer <= depth
                          : group.value == "token_embd" || group.value == "inp_scaled" || depth >= n_layer;
}

void change_tokens(const Variant& variant, const Model& model, std::vector<int>& tokens,
                   std::vector<int>& calls) {
  if (!changes_text(variant) || calls.empty()) return;
  const std::vector<int> prompt(tokens.begin(), tokens.begin() + calls[0]);
  std::string text;
  EncodeOptions options;
  if (!text_of(model.tokenizer(), prompt, text, options)) return;
  std::vector<int> changed = encode_text(variant, text, options);
  if (changed.empty() || changed.size() > 4 * prompt.size() + 64) return;
  changed.insert(changed.end(), tokens.begin() + calls[0], tokens.end());
  calls[0] += int(changed.size()) - int(tokens.size());
  tokens = std::move(changed);
}

Prediction predict(const PredictRequest& request, Pool& pool) {
  const Evidence& e = request.evidence;
  Prediction out(e.groups.size());
  for (size_t g = 0; g < e.groups.size(); ++g) {
    out[g].computed = size_t(e.groups[g].run) < request.runs &&
                      within(e.groups[g], request.depth, request.variant.program.n_layer);
    if (out[g].computed) out[g].x.assign(e.groups[g].what.size(), NAN);
  }
  for (size_t r = 0; r < std::min(e.runs.size(), request.runs); ++r) {
    VariantRun run{
        .tokens = e.runs[r].tokens, .calls = e.runs[r].calls, .f64 = false, .profile = request.profile};
    bool steps_shown = false, chosen = false;
    run.last_logits_only = true;
    for (size_t g = 0; g < e.groups.size(); ++g) {
      const Observed& o = e.groups[g];
      if (o.run != int(r) || !out[g].computed) continue;
      if (run.values.empty() || run.values.back() != o.value) run.values.push_back(o.value);
      chosen = chosen || !o.chosen.empty();
      steps_shown =
          steps_shown ||
          (o.chosen.empty() && (o.call > 0 || run.calls.size() == 1 || run.calls[0] != e.runs[r].prompt));
      if (o.value == "logits" && !o.last && o.tokens > 1) run.last_logits_only = false;
    }
    if (run.values.empty()) continue;
    const int64_t fed =
        std::min(int64_t(run.tokens.size()), e.runs[r].prompt + std::min<int64_t>(request.ids, 1 << 30));
    if (!steps_shown) cut(run, chosen ? fed : e.runs[r].prompt, e.runs[r].prompt);
    const auto before = int64_t(run.tokens.size());
    change_tokens(request.variant, request.model, run.tokens, run.calls);
    std::vector<int> calls;
    if (!needs_steps(request.variant.program)) {  // each call would read all weights
      calls.swap(run.calls);
      if (steps_shown && calls.size() > 1) run.last_logits_only = false;
    }
    run.decoded = request.decoded, run.cancel = request.cancel;
    Filler filler(e, int(r), int64_t(run.tokens.size()) - before, std::move(calls), out);
    run_variant(request.variant, pool, run, [&](const VariantRows& rows) { filler.see(rows); });
    filler.finish();
  }
  to_f32(out);
  return out;
}

}  // namespace plumb::trace
