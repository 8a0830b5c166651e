#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "app/diagnose_report.h"

namespace plumb {
namespace {

using trace::Diagnosis;
using trace::Reproduced;

constexpr double kTold = 1e-3;  // probability below which a candidate is not told

// One map: every value with the worst of its numbers, under the fault or under none.
ReportMap numbers_of(const Diagnosis& d, bool right, std::string title, std::string note) {
  ReportMap map{.title = std::move(title), .note = std::move(note), .cells = {}};
  for (const Reproduced& n : d.numbers) {
    if (map.cells.empty() || map.cells.back().name != n.value) map.cells.push_back({.name = n.value});
    ReportCell& c = map.cells.back();
    const double score = right ? n.right_score : n.score;
    c.score = std::max(c.score, std::isfinite(score) ? score : 1e9);
    if (c.facts.size() < 12)
      c.facts.emplace_back(
          n.what, fmt::format("theirs {:.6g}, {} {:.6g}", n.foreign, right ? "right" : "with the fault",
                              right ? n.right : n.predicted));
    c.lead = c.score > 1 ? fmt::format("{:.3g} times what rounding and printing explain", c.score)
                         : fmt::format("explained: {:.2g} of what is allowed", c.score);
    c.first = n.value == d.first;
  }
  return map;
}

std::string sources(const trace::DiagnoseRequest& request) {
  std::string text;
  for (const trace::Trace* t : request.theirs) text += (text.empty() ? "" : ", ") + t->path();
  return text;
}

}  // namespace

Report diagnosis_page(const Diagnosis& d, const Next* next, const trace::DiagnoseRequest& request) {
  static constexpr const char* kLevels[] = {"same", "named", "diverges", "unusable"};
  Report r{.title = "plumb diagnose",
           .level = kLevels[int(d.verdict)],
           .verdict = {},
           .lines = report_lines(diagnosis_text(d, next)),
           .facts = {{"evidence", sources(request)}, {"model", request.model.file().path()}},
           .unit = "1 = what rounding and printing explain",
           .pieces = {},
           .maps = {}};
  const auto head = std::find_if(r.lines.begin(), r.lines.end(), [](const auto& line) {
    return line.first == "DIAGNOSIS" || line.first == "NEAREST" || line.first == "SAME" ||
           line.first == "UNUSABLE" || line.first == "UNKNOWN";
  });
  if (head != r.lines.end()) {
    r.verdict = head->first + " " + head->second;
    r.lines.erase(head);
  }
  for (const trace::Candidate& c : d.candidates) {
    if (c.p < kTold && &c != &d.candidates.front()) break;
    r.facts.emplace_back(fmt::format("p = {:.3g}", c.p), trace::describe(c.faults));
  }
  for (size_t i = 0; i < std::min<size_t>(d.excluded.size(), 12); ++i) {
    const trace::Excluded& e = d.excluded[i];
    r.facts.emplace_back("excluded",
                         fmt::format("{}: {:.0f} nats behind{}", trace::describe(e.faults), e.nats,
                                     e.against.empty() ? "" : ", against it " + e.against));
  }
  if (d.numbers.empty()) return r;
  if (d.verdict != Diagnosis::Verdict::consistent)
    r.maps.push_back(numbers_of(
        d, false, "With the fault",
        "Their numbers against a run of ours with " + trace::describe(d.candidates.front().faults) + "."));
  r.maps.push_back(numbers_of(d, true, "Without a fault", "Their numbers against a right engine's."));
  return r;
}

}  // namespace plumb
