#include "trace/next.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trace/search.h"

namespace plumb::trace {
namespace {

constexpr size_t kWeighed = 8;     // candidates and members of their classes
constexpr double kDistinct = 6;    // deviations of rounding between two numbers that nobody takes for one
constexpr double kPrinted = 1e-4;  // and relative: what six decimals show
constexpr int64_t kAsked = 8;      // of the last token
constexpr int64_t kLong = 96;      // tokens of a repeated prompt
constexpr size_t kTold = 5;

struct Weighed {
  FaultSet faults;
  double p;
};

std::vector<Weighed> to_tell_apart(const Diagnosis& d) {
  std::vector<Weighed> list;
  for (const Candidate& c : d.candidates) {
    if (!list.empty() && c.p < 1e-3) break;
    const double p = std::max(c.p, 1e-6) / double(1 + c.same.size());
    list.push_back({c.faults, p});
    for (const FaultSet& s : c.same) list.push_back({s, p});
  }
  if (list.size() > kWeighed) list.resize(kWeighed);
  return list;
}

// What could be asked: a run, and which call of it is printed.
struct Question {
  std::string prompt;
  ForeignRun run;
  int call = 0;
};

std::vector<Question> questions_of(const Trace& trace) {
  const Header& h = trace.header();
  const int64_t n = std::clamp<int64_t>(h.prompt, 1, int64_t(h.tokens.size()));
  const std::vector<int> prompt(h.tokens.begin(), h.tokens.begin() + n);
  std::vector<Question> list = {{"", {&trace, prompt, n, {int(n)}}, 0}};
  std::vector<int> repeated;
  while (int64_t(repeated.size()) < kLong) repeated.insert(repeated.end(), prompt.begin(), prompt.end());
  const auto all = int64_t(repeated.size());
  list.push_back(
      {fmt::format("the prompt {} times, {} tokens", all / n, all), {&trace, repeated, all, {int(all)}}, 0});
  std::vector<int> stepped = prompt;
  for (int i = 0; i < 3; ++i) stepped.push_back(prompt[size_t(i) % prompt.size()]);
  list.push_back({"the third of three tokens fed singly behind the prompt (its first ones)",
                  {&trace, stepped, n, {int(n), 1, 1, 1}},
                  3});
  return list;
}

// A line of statistics over the call, and the first elements of its last token, of every value in the first,
// the middle and the last layer and outside of layers.
Evidence watch(const Question& q, const Program& p) {
  Evidence e;
  e.runs.push_back(q.run);
  const int64_t count = q.run.calls[size_t(q.call)], end = q.call == 0 ? count : int64_t(q.run.tokens.size());
  for (const bool elements : {false, true}) {
    for (const Node& n : p.nodes) {
      const Value v = p.find(n.name);
      const int layer = n.name.starts_with("blk.") ? std::atoi(n.name.c_str() + 4) : -1;
      if (n.name.empty() || v < 0 || (layer > 0 && layer != p.n_layer / 2 && layer != p.n_layer - 1))
        continue;
      Observed o{.value = n.name, .layer = layer, .first = end - count, .tokens = count, .call = q.call};
      o.whole_call = !elements && n.name != "logits";
      if (!o.whole_call) o.first = end - 1, o.tokens = 1, o.last = true;
      const int64_t size = p.shape(v).size();
      using enum Quantity::Kind;
      if (!elements) o.what = {{rms, 0}, {min, 0}, {max, 0}};
      for (int64_t i = 0; elements && i < std::min(kAsked, size); ++i) o.what.push_back({element, i});
      e.groups.push_back(std::move(o));
    }
  }
  complete(p, e);
  return e;
}

// Where a value lies that nothing explains: its layer, or itself.
std::string place_of(const std::string& value) {
  const size_t dot = value.starts_with("blk.") ? value.find('.', 4) : std::string::npos;
  return dot == std::string::npos ? value : value.substr(0, dot) + ".*";
}

// How far apart two hypotheses say a quantity is, in deviations of rounding.
double distance(const Expected& a, const Expected& b, size_t g, size_t i) {
  const double x = a.exact[g].x[i], y = b.exact[g].x[i];
  if (std::isfinite(x) != std::isfinite(y)) return 1e9;
  if (!std::isfinite(x)) return 0;
  const double apart = std::abs(x - y);
  if (apart < kPrinted * std::max(std::abs(x), std::abs(y))) return 0;
  return apart / std::max(std::hypot(a.scale[g][i], b.scale[g][i]), 1e-30);
}

// The candidates under one question, and what of it tells them apart.
class Outcomes {
 public:
  Outcomes(const DiagnoseRequest& request, const Evidence& evidence, const std::vector<Weighed>& all)
      : evidence_(evidence), simulator_(request, evidence) {
    for (const Weighed& w : all) {
      std::optional<Hypothesis> h = simulator_.run(w.faults, simulator_.program().n_layer);
      if (h) found_.push_back(std::move(*h)), p_.push_back(w.p);
    }
  }

  std::optional<NextMeasurement> measurement(size_t g) const {
    const Observed& o = evidence_.groups[g];
    const size_t printed = o.what[0].kind == Quantity::Kind::element ? size_t(kAsked) : o.what.size();
    double sum = 0, ended = 0, best = 0;
    size_t shown = 0;
    for (size_t a = 0; a < found_.size(); ++a) {
      for (size_t b = a + 1; b < found_.size(); ++b) {
        double most = 0;
        for (size_t i = 0; i < std::min(printed, o.what.size()); ++i) {
          const double d = distance(found_[a].expected, found_[b].expected, g, i);
          if (p_[a] * p_[b] * d > best) best = p_[a] * p_[b] * d, shown = i;
          most = std::max(most, d);
        }
        sum += p_[a] * p_[b], ended += most > kDistinct ? p_[a] * p_[b] : 0;
      }
    }
    if (!(ended > 0)) return std::nullopt;
    NextMeasurement m{.value = o.value, .decides = ended / sum};
    m.what = o.what[0].kind != Quantity::Kind::element
                 ? (o.whole_call ? "rms, min and max" : "rms, min and max of the last token")
                 : fmt::format("the first {} elements of the last token", printed);
    static constexpr const char* kNames[] = {"element", "rms", "mean", "min", "max"};
    m.shown = kNames[int(o.what[shown].kind)];
    if (o.what[shown].kind == Quantity::Kind::element) m.shown += fmt::format(" {}", o.what[shown].index);
    for (const Hypothesis& h : found_) m.says.push_back({h.faults, h.expected.exact[g].x[shown]});
    return m;
  }

 private:
  const Evidence& evidence_;
  Simulator simulator_;
  std::vector<Hypothesis> found_;
  std::vector<double> p_;
};

}  // namespace

std::vector<NextMeasurement> next_measurements(const DiagnoseRequest& request, const Diagnosis& diagnosis) {
  if (diagnosis.verdict == Diagnosis::Verdict::unknown && !diagnosis.first.empty())
    return {
        {.value = place_of(diagnosis.first), .what = "rms, min and max of every operation, or a full trace"}};
  const std::vector<Weighed> all = to_tell_apart(diagnosis);
  if (all.size() < 2) return {};
  for (const Question& q : questions_of(*request.theirs[0])) {
    const Evidence evidence = watch(q, request.model.program());
    const Outcomes outcomes(request, evidence, all);
    std::vector<NextMeasurement> list;
    for (size_t g = 0; g < evidence.groups.size(); ++g) {
      if (std::optional<NextMeasurement> m = outcomes.measurement(g)) list.push_back(std::move(*m));
      if (!list.empty()) list.back().prompt = q.prompt;
    }
    // Groups stand in the order of their cost: lines of statistics before elements, early values before late
    // ones.
    std::stable_sort(list.begin(), list.end(), [](const NextMeasurement& a, const NextMeasurement& b) {
      return a.decides > b.decides + 1e-9;
    });
    if (list.size() > kTold) list.resize(kTold);
    if (!list.empty()) return list;
  }
  return {};
}

}  // namespace plumb::trace
