#include "trace/local.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "trace/edits.h"
#include "trace/golden_section.h"

namespace plumb::trace {
namespace {

constexpr size_t kLayers = 2;    // of each kind of marked operation
constexpr size_t kSingles = 16;  // that explain something, to be put together
constexpr size_t kBases = 3;     // sets that are enlarged
constexpr size_t kFitted = 3;    // parametric faults whose number is looked for
constexpr double kSame = 2;      // nats

struct Target {
  std::string value;
  double floor, print;
  bool marked;
};

struct Local {
  FaultSet faults;
  std::vector<double> errors;  // by target
  double log_likelihood = 0;
};

class LocalSearch {
 public:
  explicit LocalSearch(const LocalRequest& request)
      : r_(request), model_(request.request.model), rows_(request.theirs), decoded_(int64_t(1) << 30) {
    split_fused(rows_, model_.program(), [&](const std::string& blk) {
      return std::any_of(r_.diff.values.begin(), r_.diff.values.end(), [&](const Difference& v) {
        return v.value == blk + ".attn_v" && v.gauge.find(kQkvByHead) != std::string::npos;
      });
    });
    find_gauges();
    choose_targets();
    prepare();
  }

  LocalDiagnosis run() {
    health_ = *evaluate({});
    Evidence evidence;
    observe(r_.theirs, model_.program(), {}, evidence);
    std::vector<FaultSet> sets = single_faults(model_, evidence);
    std::erase_if(sets, [&](const FaultSet& s) { return s[0].fault->first.empty(); });
    collect(sets, "operations under known faults");
    fit();
    for (int size = 2; size <= r_.request.max_faults && !covers(best()); ++size) combine();
    return report();
  }

  std::string contradicts(const FaultSet& faults) {
    health_ = *evaluate({});
    const std::optional<Local> l = evaluate(faults);
    for (size_t i = 0; l && i < targets_.size(); ++i) {
      if (explained(health_, i) && !explained(*l, i)) return targets_[i].value;
    }
    return {};
  }

 private:
  void find_gauges() {
    const Gauges gauges(model_.program().arch, &model_);
    for (const Difference& v : r_.diff.values) {
      const Value at = model_.program().find(v.value);
      if (v.gauge.empty() || at < 0) continue;
      const Shape& shape = model_.program().shape(at);
      gauges.remember(v, shape.heads, shape.dim, rows_);
    }
  }

  // The marked operations of the first layers in which each kind is marked, and all others there; and of the
  // first in which it is right, as a fault of all layers is none of some.
  void choose_targets() {
    std::set<size_t> marked(r_.diff.lit.begin(), r_.diff.lit.end());
    std::set<int> layers;
    std::map<std::string_view, size_t> of_kind;
    for (const size_t i : marked) {
      const std::string& value = r_.diff.operations[i].difference.value;
      if (of_kind[kind_of(value)]++ < kLayers) layers.insert(layer_of(value));
    }
    for (size_t i = 0; i < r_.diff.operations.size(); ++i) {
      const std::string& value = r_.diff.operations[i].difference.value;
      if (!marked.count(i) && of_kind.erase(kind_of(value)) > 0) layers.insert(layer_of(value));
    }
    for (size_t i = 0; i < r_.diff.operations.size(); ++i) {
      const Difference& d = r_.diff.operations[i].difference;
      if (layers.count(layer_of(d.value)) == 0 && layer_of(d.value) >= 0) continue;
      if (model_.program().find(d.value) < 0) continue;  // inside attention, which is there as a whole
      targets_.push_back({d.value, d.floor, d.print, marked.count(i) > 0});
    }
  }

  // The run of every hypothesis: given is what was recorded for every position, represented as it is here.
  void prepare() {
    run_.tokens = r_.theirs.header().tokens;
    for (int64_t n : r_.theirs.header().calls) run_.calls.push_back(int(n));
    for (const Target& t : targets_) run_.values.push_back(t.value);
    run_.f64 = false, run_.replay = true, run_.decoded = &decoded_, run_.cancel = r_.request.cancel;
    const Program& p = model_.program();
    const auto tokens = int64_t(r_.theirs.header().tokens.size());
    for (const Node& node : p.nodes) {
      const auto& rows = rows_.full(node.name);
      if (int64_t(rows.size()) < tokens || rows.begin()->second.size() != node.shape.size()) continue;
      std::vector<double>& all = run_.given[node.name];
      for (int64_t t = 0; t < tokens; ++t) {
        const auto at = rows.find(t);
        if (at == rows.end()) break;
        std::vector<double> row = rows_.row(at->second);
        if (const Gauge* gauge = rows_.gauge(node.name)) gauge->undo(row, row);
        all.insert(all.end(), row.begin(), row.end());
      }
      if (int64_t(all.size()) != tokens * node.shape.size()) run_.given.erase(node.name);
    }
  }

  std::optional<Local> evaluate(const FaultSet& faults) {
    const std::optional<Variant> variant = try_vary(model_, faults);
    if (!variant || !(variant->program.feed == WrongFeed())) return std::nullopt;
    ++tried_;
    Local local{faults, std::vector<double>(targets_.size(), INFINITY), 0};
    std::map<std::string, Comparison, std::less<>> sums;
    run_variant(*variant, model_.pool(), run_, [&](const VariantRows& rows) { add(rows, sums); });
    for (size_t i = 0; i < targets_.size(); ++i) {
      const auto at = sums.find(targets_[i].value);
      if (at != sums.end()) local.errors[i] = at->second.result().error;
      const double z = local.errors[i] / (targets_[i].floor + targets_[i].print);
      local.log_likelihood -= 2.5 * std::log1p(std::min(z * z / 4, 1e12));
    }
    return local;
  }

  void add(const VariantRows& rows, std::map<std::string, Comparison, std::less<>>& sums) {
    const auto& theirs = rows_.full(std::string(rows.value));
    const auto sum = sums.try_emplace(std::string(rows.value), std::string(rows.value), 1).first;
    const size_t size = rows.data.size() / size_t(rows.rows);
    for (int t = 0; t < rows.rows; ++t) {
      const auto at = theirs.find(rows.first + t);
      if (at == theirs.end() || at->second.size() != int64_t(size)) continue;
      const auto ours = rows.data.subspan(size_t(t) * size, size);
      std::vector<double> row = rows_.row(at->second);
      if (const Gauge* gauge = rows_.gauge(std::string(rows.value))) gauge->undo(row, ours);
      sum->second.add(rows.first + t, row, ours);
    }
  }

  bool explained(const Local& l, size_t i) const {
    Difference d;
    d.error = l.errors[i], d.floor = targets_[i].floor, d.print = targets_[i].print;
    return score_of(d) <= 1;
  }
  bool covers(const Local& l) const {
    for (size_t i = 0; i < targets_.size(); ++i) {
      if (!explained(l, i) && (targets_[i].marked || explained(health_, i))) return false;
    }
    return true;
  }
  bool helps(const Local& l) const {
    for (size_t i = 0; i < targets_.size(); ++i) {
      if (targets_[i].marked && explained(l, i)) return true;
    }
    return false;
  }

  void sort() {
    std::stable_sort(found_.begin(), found_.end(), [](const Local& a, const Local& b) {
      return std::pair(-a.log_likelihood, a.faults.size()) < std::pair(-b.log_likelihood, b.faults.size());
    });
  }
  const Local& best() {
    sort();
    return found_.empty() ? health_ : found_.front();
  }

  void collect(const std::vector<FaultSet>& sets, const char* what) {
    for (size_t i = 0; i < sets.size(); ++i) {
      if (std::optional<Local> l = evaluate(sets[i])) found_.push_back(std::move(*l));
      if (r_.request.progress) r_.request.progress(what, double(i + 1) / double(sets.size()));
    }
    sort();
  }

  // Golden section on the logarithm of the parameter, for each parametric fault that helps at all.
  void fit() {
    std::map<const Fault*, Local> best;
    for (const Local& l : found_) {
      if (!l.faults[0].fault->parameter.name || l.log_likelihood <= health_.log_likelihood + kSame) continue;
      if (best.size() < kFitted || helps(l)) best.try_emplace(l.faults[0].fault, l);  // found_ is sorted
    }
    for (const auto& [fault, start] : best) {
      if (!(fault->parameter.low > 0)) continue;
      const auto at = [&](double x) -> double {
        std::optional<Local> l = evaluate({{fault, std::exp(x)}});
        if (!l) return INFINITY;
        found_.push_back(*l);
        return -l->log_likelihood;
      };
      const double step = std::log(fault->parameter.high / fault->parameter.low) / 8;
      double low = std::log(start.faults[0].parameter) - step, high = low + 2 * step;
      low = std::max(low, std::log(fault->parameter.low)),
      high = std::min(high, std::log(fault->parameter.high));
      golden_section(at, low, high, 24);  // which keeps what it tries in found_
    }
    sort();
    keep_best_parameters();
  }

  // Of each set of faults one entry.
  void keep_best_parameters() {
    std::set<std::vector<const Fault*>> seen;
    std::erase_if(found_, [&](const Local& l) {
      std::vector<const Fault*> key;
      for (const ChosenFault& c : l.faults) key.push_back(c.fault);
      return !seen.insert(key).second;
    });
  }

  // The best so far with each single fault that explains something.
  void combine() {
    std::vector<FaultSet> helpers, sets;
    std::vector<Local> bases;
    for (const Local& l : found_) {
      if (!may_have_company(l.faults)) continue;
      if (bases.size() < kBases) bases.push_back(l);
      if (l.faults.size() == 1 && helps(l) && helpers.size() < kSingles) helpers.push_back(l.faults);
    }
    for (const Local& base : bases) {
      for (const FaultSet& more : helpers) {
        if (std::any_of(base.faults.begin(), base.faults.end(),
                        [&](const ChosenFault& c) { return c.fault == more[0].fault; }))
          continue;
        sets.push_back(base.faults);
        sets.back().push_back(more[0]);
      }
    }
    collect(sets, "faults together");
  }

  LocalDiagnosis report() {
    const Local& first = best();
    LocalDiagnosis out;
    out.tried = tried_;
    for (size_t i = 0; i < targets_.size(); ++i) {
      if (!targets_[i].marked) continue;
      if (!explained(first, i)) out.left.push_back(targets_[i].value);
      out.numbers.push_back({targets_[i].value, "error", targets_[i].floor, first.errors[i],
                             health_.errors[i], explained(first, i), first.errors[i] / targets_[i].floor,
                             health_.errors[i] / targets_[i].floor});
    }
    if (out.left.empty() && !covers(first)) out.left.push_back(out.numbers.front().value);
    for (const Local& l : found_) {
      if (out.candidates.size() == 10) break;
      Candidate* same = nullptr;
      for (Candidate& c : out.candidates) {
        if (std::abs(c.log_likelihood - l.log_likelihood) < kSame && c.faults.size() == l.faults.size())
          same = &c;
      }
      if (same) {
        same->same.push_back(l.faults);
      } else {
        out.candidates.push_back(
            {l.faults, l.log_likelihood, 0, {}, !l.faults.empty() && l.faults[0].fault->control});
      }
    }
    return out;
  }

  const LocalRequest& r_;
  const Model& model_;
  Rows rows_;
  DecodedWeights decoded_;
  std::vector<Target> targets_;
  VariantRun run_ = {};
  std::vector<Local> found_;
  Local health_;
  int64_t tried_ = 0;
};

}  // namespace

LocalDiagnosis diagnose_locally(const LocalRequest& request) { return LocalSearch(request).run(); }

std::string contradicted_by(const LocalRequest& request, const FaultSet& faults) {
  return LocalSearch(request).contradicts(faults);
}

}  // namespace plumb::trace
