#include "app/diagnose_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/diff_report.h"

namespace plumb {
namespace {

using trace::Diagnosis;
using trace::FaultSet;
using trace::Reproduced;

constexpr const char* kVerdicts[] = {"consistent", "named", "unknown", "unusable"};

Json ids(const FaultSet& faults) {
  Json::Array list;
  for (const trace::ChosenFault& c : faults) list.push_back(c.fault->id);
  return list;
}

Json as_json(const trace::Candidate& c) {
  Json j;
  Json::Array parameters, same = {ids(c.faults)};
  for (const trace::ChosenFault& f : c.faults)
    parameters.push_back(f.fault->parameter.name ? Json(f.parameter) : Json());
  for (const FaultSet& other : c.same) same.push_back(ids(other));
  j.set("faults", ids(c.faults)), j.set("parameters", std::move(parameters)), j.set("p", c.p);
  j.set("log_likelihood", c.log_likelihood), j.set("control", c.control), j.set("class", std::move(same));
  j.set("text", trace::describe(c.faults));
  return j;
}

// The numbers that tell most: those where the fault moves furthest from what is right.
std::vector<const Reproduced*> telling(const Diagnosis& d) {
  std::vector<const Reproduced*> list;
  for (const Reproduced& n : d.numbers) list.push_back(&n);
  const auto distance = [](const Reproduced* n) {
    return std::abs(n->predicted - n->right) / (std::abs(n->right) + std::abs(n->predicted) + 1e-30);
  };
  std::stable_sort(list.begin(), list.end(), [&](const Reproduced* a, const Reproduced* b) {
    if (a->agrees != b->agrees) return a->agrees;
    return distance(a) > distance(b);
  });
  return list;
}

std::string names(const trace::Candidate& c) {
  std::string text = trace::describe(c.faults);
  for (size_t i = 0; i < c.same.size() && i < 3; ++i) text += " = " + trace::describe(c.same[i]);
  if (c.same.size() > 3) text += fmt::format(" = {} more", c.same.size() - 3);
  return text;
}

std::string reproduced(const Diagnosis& d) {
  std::string text = fmt::format("{} of {} numbers", d.agreeing, d.numbers.size());
  int shown = 0;
  for (const Reproduced* n : telling(d)) {
    if (!n->agrees || ++shown > 2) break;
    text += fmt::format("; {} {}: {:.6g}, theirs {:.6g}, right {:.6g}", n->value, n->what, n->predicted,
                        n->foreign, n->right);
  }
  return text;
}

std::string stories(const FaultSet& faults) {
  std::string text, seen;
  for (const trace::ChosenFault& c : faults) {
    text += fmt::format("{:<12} {}\n", "WHAT", c.fault->story);
    if (!c.fault->references.empty()) seen += (seen.empty() ? "" : ", ") + c.fault->references;
  }
  if (!seen.empty()) text += fmt::format("{:<12} {}\n", "SEEN IN", seen);
  return text;
}

std::string excluded(const Diagnosis& d) {
  std::string text = fmt::format("{} faults", d.excluded.size());
  for (size_t i = 0; i < std::min<size_t>(d.excluded.size(), 3); ++i) {
    const trace::Excluded& e = d.excluded[i];
    text +=
        fmt::format("{} {} ({:.0f} nats behind{})", i == 0 ? "; closest:" : ",", trace::describe(e.faults),
                    e.nats, e.against.empty() ? "" : ", against it " + e.against);
  }
  return text;
}

std::string next_text(const trace::NextMeasurement& m) {
  std::string text = fmt::format("print {} of {}", m.what, m.value);
  if (!m.prompt.empty()) text += " for " + m.prompt;
  for (size_t i = 0; i < std::min<size_t>(m.says.size(), 4); ++i)
    text += fmt::format("{} {:.6g} if {}", i == 0 ? ": " + m.shown : ",", m.says[i].number,
                        trace::describe(m.says[i].faults));
  return m.says.empty() ? text : text + fmt::format("; decides {:.0f} %", 100 * m.decides);
}

Json as_json(const trace::NextMeasurement& m) {
  Json j;
  Json::Array says;
  for (const auto& s : m.says) {
    Json one;
    one.set("faults", ids(s.faults)), one.set("number", finite(s.number));
    says.push_back(std::move(one));
  }
  j.set("value", m.value), j.set("what", m.what), j.set("prompt", m.prompt.empty() ? Json() : Json(m.prompt));
  j.set("shown", m.shown), j.set("says", std::move(says)), j.set("decides", m.decides);
  return j;
}

Json as_json(const trace::Excluded& e) {
  Json j;
  j.set("faults", ids(e.faults)), j.set("nats", finite(e.nats)), j.set("depth", int64_t(e.depth));
  j.set("against", e.against.empty() ? Json() : Json(e.against));
  return j;
}

std::string others(const Diagnosis& d) {
  std::string text;
  for (size_t i = 1; i < std::min<size_t>(d.candidates.size(), 4); ++i)
    text += fmt::format("{} p = {:.2g}, ", trace::describe(d.candidates[i].faults), d.candidates[i].p);
  return text + fmt::format("outside the catalogue p = {:.2g}", d.p_outside);
}

}  // namespace

std::string diagnosis_text(const Diagnosis& d, const Next* next) {
  if (d.verdict == Diagnosis::Verdict::unusable) return line("UNUSABLE", d.reason);
  std::string text;
  if (!d.first.empty()) text += line("DIVERGES", "at " + d.first);
  const trace::Candidate& best = d.candidates.front();
  if (d.verdict == Diagnosis::Verdict::consistent) {
    text += line("SAME", best.faults.empty() ? "consistent with a right engine"
                                             : names(best) + ": another arithmetic, no fault");
  } else if (d.verdict == Diagnosis::Verdict::unknown) {
    text += line("UNKNOWN",
                 "no fault of the catalogue explains " + (d.suspect.empty() ? "all of it" : d.suspect));
    text += line("NEAREST", fmt::format("{} p = {:.2g}", names(best), best.p));
  } else {
    text += line(d.weak ? "NEAREST" : "DIAGNOSIS", fmt::format("{} p = {:.2g}", names(best), best.p));
  }
  if (!d.numbers.empty()) text += line("REPRODUCES", reproduced(d));
  if (d.verdict != Diagnosis::Verdict::consistent) text += stories(best.faults);
  text += line("OTHERS", others(d));
  if (!d.excluded.empty()) text += line("EXCLUDED", excluded(d));
  if (next)
    text += line("NEXT", next->empty() ? "nothing is left that a further number of this prompt would decide"
                                       : next_text(next->front()));
  if (!d.complete) text += line("INCOMPLETE", "interrupted: the best answer so far");
  return text + line("TRIED", fmt::format("{} hypotheses in {:.0f} s", d.tried, d.seconds));
}

Json diagnosis_json(const Diagnosis& d, const Next* next) {
  Json j;
  j.set("verdict", kVerdicts[int(d.verdict)]);
  if (!d.reason.empty()) j.set("reason", d.reason);
  j.set("first", d.first.empty() ? Json() : Json(d.first));
  j.set("suspect", d.suspect.empty() ? Json() : Json(d.suspect));
  Json::Array list, numbers;
  for (const trace::Candidate& c : d.candidates) list.push_back(as_json(c));
  j.set("hypotheses", std::move(list)), j.set("p_outside", d.p_outside), j.set("weak", d.weak);
  for (const Reproduced* n : telling(d)) {
    if (numbers.size() == 100) break;
    Json one;
    one.set("value", n->value), one.set("what", n->what), one.set("foreign", finite(n->foreign));
    one.set("predicted", finite(n->predicted)), one.set("right", finite(n->right)),
        one.set("agrees", n->agrees);
    numbers.push_back(std::move(one));
  }
  j.set("agreeing", d.agreeing), j.set("of", int64_t(d.numbers.size())), j.set("numbers", std::move(numbers));
  Json::Array dropped, measurements;
  for (const trace::Excluded& e : d.excluded) dropped.push_back(as_json(e));
  j.set("excluded", std::move(dropped));
  for (const trace::NextMeasurement& m : next ? *next : Next()) measurements.push_back(as_json(m));
  if (next) j.set("next", std::move(measurements));
  j.set("tried", d.tried), j.set("complete", d.complete), j.set("seconds", d.seconds);
  return j;
}

}  // namespace plumb
