#include "trace/search.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>

#include "base/error.h"
#include "trace/golden_section.h"

namespace plumb::trace {
namespace {

constexpr size_t kFirstGroups = 4;  // evidence that the first, shallowest pass should see
constexpr size_t kBases = 40, kNearest = 2, kKept = 24;
// Layers that all sets together may run, from the best base on.
constexpr size_t kGapLayers = 4000, kWideLayers = 1600;

std::vector<double> grid_of(const Parameter& p) {
  std::set<double> values(p.grid.begin(), p.grid.end());
  values.insert(p.usual);
  const bool logarithmic = p.low > 0;
  for (int i = 0; i <= 8 && logarithmic; ++i) values.insert(float(p.low * std::pow(p.high / p.low, i / 8.0)));
  return {values.begin(), values.end()};
}

FaultSet with(FaultSet faults, double parameter) {
  faults.back().parameter = parameter;
  return faults;
}

// Where in a layer, or before and behind all of them, a fault first shows: positions in the Program's order
// of blk.0's values.
struct Order {
  const Program& p;
  int operator()(std::string_view kind) const {
    if (kind.starts_with("attn.")) kind = "attn";
    const Value inside = p.find("blk.0." + std::string(kind));
    return inside >= 0 ? inside : p.find(kind);
  }
};

// Whether the fault may be what first shows between two kinds of values; one that depends on weights' formats
// always may.
bool may_show(const Fault& f, const Order& order, int after, int upto) {
  std::istringstream words(f.first);
  for (std::string word; words >> word;) {
    if (word == "@weights") return true;
    const int at = order(word);
    if (at > after && at <= upto) return true;
  }
  return false;
}

struct Gap {
  size_t group;     // the first that is unexplained
  int after, upto;  // the operations that may be wrong: behind the last value that is explained
};

std::optional<Gap> gap_of(Simulator& s, const Hypothesis& h) {
  const std::vector<size_t> bad = s.doubtful(h);
  if (bad.empty()) return std::nullopt;
  const std::vector<Observed>& groups = s.evidence().groups;
  const Order order{s.program()};
  Gap gap{bad[0], -1, order(kind_of(groups[bad[0]].value))};
  for (size_t g = 0; g < bad[0]; ++g) {
    if (groups[g].numbers.empty() || !h.expected.exact[g].computed) continue;
    // Behind all layers: what the last of them holds is explained, each as blk.0's.
    const bool last = groups[bad[0]].layer < 0 && groups[g].layer == s.program().n_layer - 1;
    if (groups[g].layer == groups[bad[0]].layer || last) gap.after = order(kind_of(groups[g].value));
  }
  if (gap.after >= gap.upto) gap.after = -1;
  return gap;
}

bool sees_output(const Evidence& evidence) {
  return std::any_of(evidence.groups.begin(), evidence.groups.end(),
                     [](const Observed& o) { return o.value == "logits" || o.value == "output_norm"; });
}

bool has_tokenizer(const Model& model) {
  try {
    return model.tokenizer().size() > 0;
  } catch (const Error&) {
    return false;
  }
}

bool contains(const FaultSet& set, const Fault* f) {
  return std::any_of(set.begin(), set.end(), [&](const ChosenFault& c) { return c.fault == f; });
}

struct Base {
  const Hypothesis* h;
  Gap gap;
};

// Those that explain most of the beginning; of each set of faults the best parameters.
std::vector<Base> choose_bases(Simulator& s, const std::vector<Hypothesis>& bases) {
  std::vector<Base> chosen;
  std::set<std::string> seen;
  for (const Hypothesis& h : bases) {
    if (!may_have_company(h.faults) || !seen.insert(ids_of(h.faults)).second) continue;
    if (const std::optional<Gap> gap = gap_of(s, h)) chosen.push_back({&h, *gap});
    if (chosen.size() == 2 * kBases) break;
  }
  std::stable_sort(chosen.begin(), chosen.end(), [](const Base& a, const Base& b) {
    return std::pair(-int64_t(a.gap.group), -a.h->log_likelihood) <
           std::pair(-int64_t(b.gap.group), -b.h->log_likelihood);
  });
  if (chosen.size() > kBases) chosen.resize(kBases);
  return chosen;
}

// Sets, and how near their predictions in f32 are to the numbers.
class Tries {
 public:
  Tries(Simulator& s, int depth) : s_(s), depth_(depth) {}
  size_t size() const { return tries_.size(); }
  void add(FaultSet faults, const ChosenFault& more) {
    faults.push_back(more);
    if (const std::optional<Prediction> x = s_.exact(faults, depth_))
      tries_.push_back({std::move(faults), s_.distance(*x)});
  }
  // The nearest in all arithmetics.
  std::vector<Hypothesis> run() {
    std::stable_sort(tries_.begin(), tries_.end(),
                     [](const Try& a, const Try& b) { return a.distance < b.distance; });
    std::vector<Hypothesis> out;
    for (size_t i = 0; i < std::min(tries_.size(), kKept); ++i) {
      if (std::optional<Hypothesis> h = s_.run(tries_[i].faults, depth_)) out.push_back(std::move(*h));
    }
    return out;
  }

 private:
  struct Try {
    FaultSet faults;
    double distance;
  };
  Simulator& s_;
  int depth_;
  std::vector<Try> tries_;
};

bool same_numbers(const Prediction& a, const Prediction& b) {
  for (size_t g = 0; g < a.size(); ++g) {
    for (size_t i = 0; i < a[g].x.size(); ++i) {
      const double unit = std::max({std::abs(a[g].x[i]), a[g].size, 1e-30});
      if (!(std::abs(a[g].x[i] - b[g].x[i]) < 1e-6 * unit)) return false;
    }
  }
  return true;
}

bool is_finite(const Prediction& p) {
  return std::all_of(p.begin(), p.end(), [](const PredictedGroup& g) {
    return std::all_of(g.x.begin(), g.x.end(), [](double x) { return std::isfinite(x); });
  });
}

// Single faults that change the numbers, of those that do the same the first.
std::vector<ChosenFault> distinct_faults(Simulator& s, int depth) {
  std::vector<ChosenFault> chosen;
  std::vector<Prediction> seen = {s.health().exact};
  for (const FaultSet& f : single_faults(s.model(), s.evidence())) {
    if (!may_have_company(f) || !of_the_wild(f[0])) continue;
    std::optional<Prediction> x = s.exact(f, depth);
    if (!x || std::any_of(seen.begin(), seen.end(), [&](const Prediction& p) { return same_numbers(*x, p); }))
      continue;
    seen.push_back(std::move(*x));
    chosen.push_back(f[0]);
  }
  return chosen;
}

}  // namespace

std::string ids_of(const FaultSet& faults) {
  std::string ids;
  for (const ChosenFault& c : faults) ids += std::string(c.fault->id) + " ";
  return ids;
}

bool may_have_company(const FaultSet& faults) {
  return !faults.empty() && !faults[0].fault->control && faults[0].fault->id[0] != 'M';
}

bool shows_output_alone(const Evidence& evidence) {
  return std::all_of(evidence.groups.begin(), evidence.groups.end(),
                     [](const Observed& o) { return o.value == "logits" || o.value == "output_norm"; });
}

std::vector<int> depths_of(const Evidence& evidence, int n_layer) {
  std::vector<int> layers;
  for (const Observed& o : evidence.groups) {
    if (!o.numbers.empty())
      layers.push_back(o.layer >= 0 ? o.layer : o.value.starts_with("token") ? 0 : n_layer);
  }
  std::sort(layers.begin(), layers.end());
  if (layers.empty()) return {n_layer};
  const int first = layers[std::min(kFirstGroups, layers.size()) - 1];
  std::vector<int> depths = {first};
  for (const int next : {std::max(first * 4, n_layer / 4), n_layer}) {
    if (next > depths.back()) depths.push_back(next);
  }
  return depths;
}

std::vector<FaultSet> single_faults(const Model& model, const Evidence& evidence) {
  std::vector<FaultSet> all;
  const bool tokenizes = has_tokenizer(model), output = sees_output(evidence);
  size_t calls = 1;
  for (const ForeignRun& run : evidence.runs) calls = std::max(calls, run.calls.size());
  for (const Fault& f : catalogue()) {
    const bool text = f.id[0] == 'K' && tokenizes;
    if ((f.first.empty() && !text) || size_t(f.step) >= calls || !applies(f, model)) continue;
    if (!output && (f.first == "logits" || f.first == "output_norm")) continue;
    if (!f.parameter.name) {
      all.push_back({{&f, 0}});
      continue;
    }
    for (const double value : grid_of(f.parameter)) all.push_back({{&f, value}});
  }
  return all;
}

bool of_the_wild(const ChosenFault& c) {
  const Parameter& p = c.fault->parameter;
  return !p.name || c.parameter == p.usual ||
         std::find(p.grid.begin(), p.grid.end(), c.parameter) != p.grid.end();
}

std::optional<FaultSet> fit_parameter(Simulator& s, const FaultSet& faults, int depth) {
  const Parameter& p = faults.back().fault->parameter;
  if (!p.name || !(p.low > 0)) return std::nullopt;
  const auto distance = [&](double parameter) {
    const std::optional<Prediction> x = s.exact(with(faults, parameter), depth);
    return x ? s.distance(*x) : INFINITY;
  };
  // Golden section on the logarithm, between the neighbours of the best of the grid.
  const std::vector<double> grid = grid_of(p);
  size_t best = 0;
  std::vector<double> at;
  for (const double value : grid) at.push_back(distance(value));
  for (size_t i = 1; i < at.size(); ++i) best = at[i] < at[best] ? i : best;
  const double low = std::log(grid[best > 0 ? best - 1 : 0]);
  const double high = std::log(grid[std::min(best + 1, grid.size() - 1)]);
  const Minimum found = golden_section([&](double x) { return distance(std::exp(x)); }, low, high, 22);
  return with(faults, found.value < at[best] ? std::exp(found.at) : grid[best]);
}

std::vector<Hypothesis> extend(Simulator& s, const std::vector<Hypothesis>& bases, int depth, Reach reach,
                               const Progress& progress) {
  const std::vector<Base> chosen = choose_bases(s, bases);
  const size_t most = (reach == Reach::gap ? kGapLayers : kWideLayers) / size_t(depth + 1);
  Tries tries(s, depth);
  const Order order{s.program()};
  const std::vector<FaultSet> singles = single_faults(s.model(), s.evidence());
  for (size_t i = 0; i < chosen.size() && tries.size() < most; ++i) {
    for (const FaultSet& more : singles) {
      const Fault& f = *more[0].fault;
      if (!of_the_wild(more[0]) || !may_have_company(more) || contains(chosen[i].h->faults, &f)) continue;
      const Gap& gap = chosen[i].gap;
      if (may_show(f, order, gap.after, gap.upto) != (reach == Reach::gap)) continue;
      if (reach == Reach::layer && !may_show(f, order, -1, gap.upto)) continue;
      tries.add(chosen[i].h->faults, more[0]);
    }
    if (progress) progress("pairs", double(i + 1) / double(chosen.size()));
  }
  return tries.run();
}

std::vector<Hypothesis> pair_up(Simulator& s, const std::vector<Hypothesis>& bases, int depth,
                                const Progress& progress) {
  std::vector<std::pair<double, const Hypothesis*>> nearest;
  for (const Hypothesis& h : bases) {
    // A fitted cap or scale comes near any logits.
    if (h.faults.size() == 1 && may_have_company(h.faults) && of_the_wild(h.faults[0]) &&
        is_finite(h.expected.exact))
      nearest.emplace_back(s.distance(h.expected.exact), &h);
  }
  std::stable_sort(nearest.begin(), nearest.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::set<std::string> seen;
  std::erase_if(nearest, [&](const auto& n) { return !seen.insert(ids_of(n.second->faults)).second; });
  if (nearest.size() > kNearest) nearest.resize(kNearest);
  Tries tries(s, depth);
  const std::vector<ChosenFault> others = distinct_faults(s, depth);
  for (size_t i = 0; i < nearest.size(); ++i) {
    for (const ChosenFault& more : others) {
      if (!contains(nearest[i].second->faults, more.fault)) tries.add(nearest[i].second->faults, more);
    }
    if (progress) progress("pairs", double(i + 1) / double(nearest.size()));
  }
  return tries.run();
}

}  // namespace plumb::trace
