#include "trace/diagnose.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "engine/runner.h"
#include "trace/diff.h"
#include "trace/local.h"
#include "trace/search.h"
#include "trace/verdict.h"

namespace plumb::trace {
namespace {

constexpr double kPrune = 30;        // nats behind the best after which a hypothesis is not run deeper
constexpr size_t kFittedFaults = 8;  // parametric faults, of those nearest to the numbers, that are fitted
constexpr int kDeep = 4;             // layers from which on a run is long: then half of these
constexpr size_t kGlanced = 2;       // runs of those with generated ids that are looked at first
constexpr int kParameters = 3;       // values of one fault's parameter that are
constexpr size_t kLeast = 12, kMost = 32;  // hypotheses that are; a third of these where a run is long

class Search {
 public:
  Search(const DiagnoseRequest& request, Simulator& simulator)
      : request_(request), s_(simulator), depths_(depths_of(s_.evidence(), s_.program().n_layer)) {}

  std::vector<Hypothesis> found;  // run on all evidence, best first

  // The single faults that were run and are not among those told, each once.
  std::vector<Excluded> excluded(const std::vector<Candidate>& told) const {
    std::vector<Excluded> list;
    for (const auto& [fault, e] : excluded_) {
      const auto is = [&](const FaultSet& s) { return s.size() == 1 && s[0].fault == fault; };
      if (std::none_of(told.begin(), told.end(), [&](const Candidate& c) {
            return is(c.faults) || std::any_of(c.same.begin(), c.same.end(), is);
          }))
        list.push_back(e);
    }
    std::stable_sort(list.begin(), list.end(), [](const Excluded& a, const Excluded& b) {
      return std::pair(-a.depth, a.nats) < std::pair(-b.depth, b.nats);
    });
    return list;
  }

  // When a run was cancelled: what was found so far, if only on the first part of the evidence.
  void give_up() {
    if (!found.empty() || partial_.empty()) return;
    found = std::move(partial_);
    found.push_back(s_.healthy(found[0].depth));
    sort(found);
  }

  void singles() {
    std::vector<FaultSet> sets = single_faults(s_.model(), s_.evidence());
    if (s_.evidence().has_ids()) {
      sets = glance(sets);
    } else if (depths_[0] > kDeep) {
      sets = nearest(sets);
    }
    for (size_t i = 0; i < depths_.size(); ++i) {
      std::vector<Hypothesis> list = run_all(sets, depths_[i], i == 0 ? "known faults" : "the likeliest");
      if (i == 0) fit(list, depths_[0]);
      note(list, depths_[i]);
      if (i == 0 && depths_.size() > 1) shallow_ = list;
      sets = survivors(list, depths_[i]);
      if (depths_[i] == depths_.back()) found = std::move(list);
    }
    found.push_back(s_.healthy(depths_.back()));
    sort(found);
  }

  // Where only the output was seen.
  void pairs() {
    std::vector<Hypothesis> list = pair_up(s_, found, depths_.back(), request_.progress);
    fit(list, depths_.back());
    found.insert(found.end(), list.begin(), list.end());
    sort(found);
  }

  // Sets of one fault more than those at hand, where the best leaves something unexplained.
  void larger_sets() {
    const bool early = !shallow_.empty() && !is_late() && !s_.doubtful(best_of(shallow_)).empty();
    std::vector<Hypothesis> bases = early ? shallow_ : found, larger;
    sort(bases);
    const size_t first = early ? 0 : depths_.size() - 1;
    for (const Reach reach : {Reach::gap, Reach::layer}) {
      std::vector<Hypothesis> list = extend(s_, bases, depths_[first], reach, request_.progress);
      fit(list, depths_[first]);
      larger.insert(larger.end(), list.begin(), list.end());
      for (size_t i = first + 1; i < depths_.size(); ++i)
        list = run_all(survivors(list, depths_[i - 1]), depths_[i], "sets");
      found.insert(found.end(), list.begin(), list.end());
      sort(found);
      if (is_explained(s_, found)) return;
    }
    if (early) shallow_ = std::move(larger);
  }

 private:
  static void sort(std::vector<Hypothesis>& list) {
    std::stable_sort(list.begin(), list.end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return score(a) > score(b); });
  }
  static const Hypothesis& best_of(const std::vector<Hypothesis>& list) {
    return *std::max_element(list.begin(), list.end(),
                             [](const Hypothesis& a, const Hypothesis& b) { return score(a) < score(b); });
  }

  // Whether what the best leaves open first lies deeper than the first runs went.
  bool is_late() const {
    const std::vector<size_t> open = s_.unexplained(found[0]);
    return !open.empty() && !within(s_.evidence().groups[open[0]], depths_[0], s_.program().n_layer);
  }

  // Notes how far behind the best each was, and where.
  void note(const std::vector<Hypothesis>& list, int depth) {
    double most = s_.healthy(depth).log_likelihood;
    for (const Hypothesis& h : list) most = std::max(most, h.log_likelihood);
    for (const Hypothesis& h : list) {
      if (h.faults.size() != 1 || h.control()) continue;
      Excluded e{h.faults, most - h.log_likelihood, depth, s_.worst(h)};
      const auto [at, fresh] = excluded_.try_emplace(h.faults[0].fault, e);
      if (!fresh && std::pair(e.depth, -e.nats) > std::pair(at->second.depth, -at->second.nats))
        at->second = e;
    }
  }

  std::vector<Hypothesis> run_all(const std::vector<FaultSet>& sets, int depth, const char* what) {
    partial_.clear();
    for (size_t i = 0; i < sets.size(); ++i) {
      if (std::optional<Hypothesis> h = s_.run(sets[i], depth)) partial_.push_back(std::move(*h));
      if (request_.progress) request_.progress(what, double(i + 1) / double(sets.size()));
    }
    return std::exchange(partial_, {});
  }

  std::vector<Hypothesis> glance_all(const std::vector<FaultSet>& sets, size_t runs, const char* what) {
    std::vector<Hypothesis> list;
    for (size_t i = 0; i < sets.size(); ++i) {
      if (std::optional<Hypothesis> h = s_.glance(sets[i], runs)) list.push_back(std::move(*h));
      if (request_.progress) request_.progress(what, double(i + 1) / double(sets.size()));
    }
    return list;
  }

  // Where ids were generated, the first of a run or two are enough to drop most.
  std::vector<FaultSet> glance(std::vector<FaultSet> sets) {
    const size_t all = s_.evidence().runs.size();
    for (size_t runs = std::min(all, kGlanced);; runs = all) {
      std::vector<Hypothesis> list = glance_all(sets, runs, "first ids");
      sets = survivors(list, depths_[0], runs < all ? 3 * kMost : kMost, s_.glance({}, runs)->log_likelihood);
      if (runs == all) return sets;
    }
  }

  // Where every run is long, one in f32 tells which are worth a second in other arithmetic: the likeliest,
  // and those nearest whatever their rounding.
  std::vector<FaultSet> nearest(const std::vector<FaultSet>& sets) {
    std::vector<Hypothesis> list = glance_all(sets, 1, "known faults");
    note(list, depths_[0]);
    std::vector<FaultSet> kept = survivors(list, depths_[0], kMost, s_.glance({}, 1)->log_likelihood);
    std::vector<std::pair<double, size_t>> order;
    for (size_t i = 0; i < list.size(); ++i) order.emplace_back(s_.distance(list[i].expected.exact), i);
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < std::min(kMost, order.size()); ++i) {
      const FaultSet& near = list[order[i].second].faults;
      const auto is = [&](const FaultSet& k) { return describe(k) == describe(near); };
      if (std::none_of(kept.begin(), kept.end(), is)) kept.push_back(near);
    }
    return kept;
  }

  // Adds the parametric faults that come nearest to the numbers, with the parameter that fits best.
  void fit(std::vector<Hypothesis>& list, int depth) {
    if (s_.evidence().numbers() == 0) return;
    struct Fitted {
      const Hypothesis* h;
      double distance;
    };
    std::map<std::string, Fitted> best;
    double most = -INFINITY;
    for (const Hypothesis& h : list) {
      most = std::max(most, h.log_likelihood);
      if (h.faults.empty() || !h.faults.back().fault->parameter.name || h.expected.like_health) continue;
      const Fitted f{&h, s_.distance(h.expected.exact)};
      const auto [at, fresh] = best.try_emplace(ids_of(h.faults), f);
      if (!fresh && f.distance < at->second.distance) at->second = f;
    }
    std::vector<Fitted> order;
    for (const auto& [key, f] : best) order.push_back(f);
    std::stable_sort(order.begin(), order.end(),
                     [](const Fitted& a, const Fitted& b) { return a.distance < b.distance; });
    const size_t fitted = depth > kDeep ? kFittedFaults / 2 : kFittedFaults;
    std::vector<FaultSet> sets;
    for (size_t i = 0; i < order.size(); ++i) {
      const Hypothesis& h = *order[i].h;
      if ((i < fitted && h.faults.size() < 2) || h.log_likelihood > most - kPrune) sets.push_back(h.faults);
    }
    for (const FaultSet& set : sets) {
      const std::optional<FaultSet> fitted = fit_parameter(s_, set, depth);
      if (!fitted) continue;
      if (std::optional<Hypothesis> h = s_.run(*fitted, depth)) list.push_back(std::move(*h));
    }
  }

  // Those to run deeper. All that say the same as health stay together with it.
  std::vector<FaultSet> survivors(std::vector<Hypothesis>& list, int depth) const {
    return survivors(list, depth, depth == depths_[0] ? kMost : kMost / 3, s_.healthy(depth).log_likelihood);
  }
  std::vector<FaultSet> survivors(std::vector<Hypothesis>& list, int depth, size_t most,
                                  double health) const {
    sort(list);
    double best = health, best_fault = health;  // controls are healthy, too
    for (const Hypothesis& h : list) {
      best = std::max(best, score(h));
      if (!h.control()) best_fault = std::max(best_fault, score(h));
    }
    std::vector<FaultSet> sets;
    const bool healthy = health > best_fault - kPrune / 3;
    const size_t least = depth == depths_[0] ? kLeast : kLeast / 2;
    std::map<std::string, int> parameters;  // of the same faults: the best of them are enough
    for (const Hypothesis& h : list) {
      if (++parameters[ids_of(h.faults)] > kParameters) continue;
      const bool near = score(h) > best - kPrune;
      const bool undecided = healthy && h.expected.like_health;
      if ((near && (sets.size() < most || undecided)) || sets.size() < least) sets.push_back(h.faults);
    }
    return sets;
  }

  const DiagnoseRequest& request_;
  Simulator& s_;
  std::vector<int> depths_;
  std::vector<Hypothesis> shallow_, partial_;
  std::map<const Fault*, Excluded> excluded_;
};

bool is_full(const Trace& t) {
  return !t.header().tokens.empty() &&
         std::any_of(t.records().begin(), t.records().end(), [](const Record& r) { return r.full(); });
}

// From the operations that a diff marked: true if that settles it.
bool from_operations(const LocalRequest& local, Diagnosis& d) {
  const LocalDiagnosis found = diagnose_locally(local);
  d.tried += found.tried;
  if (found.candidates.empty()) return false;
  if (!found.left.empty()) {
    d.suspect = found.left.front();
    return false;
  }
  d.candidates = found.candidates, d.numbers = found.numbers;
  d.agreeing = int64_t(found.numbers.size());
  double sum = 0;
  for (const Candidate& c : d.candidates) sum += std::exp(c.log_likelihood - d.candidates[0].log_likelihood);
  d.p_outside = 0.02;
  for (Candidate& c : d.candidates)
    c.p = (1 - d.p_outside) * std::exp(c.log_likelihood - d.candidates[0].log_likelihood) / sum;
  d.verdict = d.candidates[0].control ? Diagnosis::Verdict::consistent : Diagnosis::Verdict::named;
  return true;
}

struct Compared {
  const Trace* theirs;
  Diff diff;
};

// Full traces are compared operation by operation: true if that settles it. Else what is known of how they
// represent values, of the first that is beyond rounding, and of each operation.
bool settle_full(const DiagnoseRequest& request, Represented& represented, std::vector<Compared>& compared,
                 Diagnosis& d) {
  for (const Trace* theirs : request.theirs) {
    if (!is_full(*theirs)) continue;
    compared.push_back(
        {theirs, trace::diff({.theirs = *theirs, .model = &request.model, .cache = request.cache})});
    const Diff& diff = compared.back().diff;
    for (const Difference& v : diff.values) {
      if (!v.gauge.empty()) represented[v.value] = v.gauge;
    }
    if (diff.first >= 0 && d.first.empty()) d.first = diff.values[size_t(diff.first)].value;
    if (!diff.lit.empty() && from_operations({request, *theirs, diff}, d)) return true;
  }
  return false;
}

constexpr const char* kIds = "input.tokens";

// Where the prompt's text is known: ids that are not ours, and which habit with text makes them. True if that
// settles it; else d.first says that they are not the text's.
bool settle_text(const DiagnoseRequest& request, Diagnosis& d) {
  const Header& h = request.theirs[0]->header();
  const Json* input = h.json.find("input");
  const Json* text = input ? input->find("text") : nullptr;
  if (!text || !text->text() || h.tokens.empty()) return false;
  const std::vector<int> theirs(h.tokens.begin(),
                                h.tokens.begin() + std::min(h.prompt, int64_t(h.tokens.size())));
  for (const bool special : {true, false}) {
    if (request.model.tokenizer().encode(*text->text(), {.parse_special = special}) == theirs) return false;
  }
  for (const Fault& f : catalogue()) {
    if (f.id[0] != 'K' || !applies(f, request.model)) continue;
    const FaultSet set = {{&f, f.parameter.usual}};
    if (encode_text(vary(request.model, set), *text->text(), {.parse_special = true}) != theirs) continue;
    if (d.candidates.empty()) {
      d.candidates.push_back({set, 0, .98, {}, false});
    } else {
      d.candidates[0].same.push_back(set);
    }
  }
  d.first = kIds;
  if (d.candidates.empty()) return false;
  d.verdict = Diagnosis::Verdict::named, d.p_outside = .02;
  return true;
}

// Not what was found, because of that value.
void doubt(const std::string& value, Diagnosis& d) {
  constexpr double kOutside = .9;
  for (Candidate& c : d.candidates) c.p *= (1 - kOutside) / std::max(1 - d.p_outside, 1e-9);
  d.verdict = Diagnosis::Verdict::unknown, d.suspect = value, d.p_outside = kOutside;
}

}  // namespace

std::string describe(const FaultSet& faults) {
  std::string text;
  for (const ChosenFault& c : faults) {
    text += (text.empty() ? "" : " and ") + full_name(*c.fault);
    if (c.fault->parameter.name) text += fmt::format(" ({} {:.4g})", c.fault->parameter.name, c.parameter);
  }
  return text.empty() ? "no fault" : text;
}

Diagnosis diagnose(const DiagnoseRequest& request) {
  const auto start = std::chrono::steady_clock::now();
  Diagnosis d;
  Evidence evidence;
  Represented represented;
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  for (const Trace* t : request.theirs)
    check_tokens(request.model, t->header().tokens, 0, request.model.program().n_ctx_train);
  std::vector<Compared> compared;
  if (settle_text(request, d) || settle_full(request, represented, compared, d)) {
    d.seconds = seconds();
    return d;
  }
  for (const Trace* t : request.theirs) observe(*t, request.model.program(), represented, evidence);
  if (evidence.numbers() == 0 && !evidence.has_ids()) {
    d.reason = "no number or generated id that says anything about this model's values";
    if (d.first == kIds) d.reason = "its ids are not those of its text, and there is " + d.reason;
    return d;
  }
  complete(request.model.program(), evidence);
  Simulator simulator(request, evidence);
  Search search(request, simulator);
  try {
    search.singles();
    for (size_t size = 2; int(size) <= request.max_faults && evidence.numbers() > 0; ++size) {
      if (shows_output_alone(evidence)) {
        if (!is_explained(simulator, search.found) || is_rough(simulator, search.found)) search.pairs();
        break;
      }
      // Ids alone tell too little of two. Where one fault more brought nothing, two will not.
      if (is_explained(simulator, search.found) || (size > 2 && search.found[0].faults.size() + 1 < size))
        break;
      search.larger_sets();
    }
  } catch (const Error& e) {
    if (e.code() != "run.cancelled") throw;
    search.give_up();
    if (search.found.empty()) throw;
    request.cancel->store(false);  // the verdict needs a few runs more
    d.complete = false;
  }
  judge(simulator, search.found, d);
  if (d.first == kIds && d.verdict == Diagnosis::Verdict::consistent) doubt(kIds, d);
  for (const Compared& r : compared) {
    if (d.verdict != Diagnosis::Verdict::named || r.diff.lit.empty()) break;
    const std::string right = contradicted_by({request, *r.theirs, r.diff}, d.candidates[0].faults);
    if (!right.empty()) doubt(right, d);
  }
  d.excluded = search.excluded(d.candidates);
  simulator.save();
  d.tried += simulator.tried();
  d.seconds = seconds();
  return d;
}

}  // namespace plumb::trace
