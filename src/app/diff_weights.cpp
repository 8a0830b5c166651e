#include "app/diff_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "app/diff_report.h"
#include "app/exit_codes.h"
#include "app/terminal_text.h"
#include "base/error.h"

namespace plumb {
namespace {

using trace::WeightDifference;
using Verdict = WeightDifference::Verdict;
constexpr const char* kWeightVerdicts[] = {"same", "same within quantisation", "differs"};
constexpr int kShown = 12;  // kinds of differences on a terminal

// "blk.3." everywhere in a text becomes "blk.*.": what holds for all layers is one kind.
std::string general(std::string text, const std::string& name) {
  const size_t dot = name.starts_with("blk.") ? name.find('.', 4) : std::string::npos;
  if (dot == std::string::npos) return text;
  const std::string layer = name.substr(0, dot + 1);
  for (size_t at = text.find(layer); at != std::string::npos; at = text.find(layer, at))
    text.replace(at, layer.size(), "blk.*.");
  return text;
}

std::string type_of(const trace::Weight* w) { return w ? info(w->format).name : "-"; }

// Kinds of differences in the order of the file: tensor, what it is, how many, the largest error.
struct Kind {
  std::string name, text;
  const WeightDifference* first = nullptr;
  int n = 0;
  double error = 0, explained = 0;
};

std::vector<Kind> kinds_of(const trace::WeightsDiff& diff) {
  std::vector<Kind> kinds;
  for (const WeightDifference& d : diff.tensors) {
    if (d.verdict != Verdict::differs) continue;
    const std::string name = general(d.name, d.name),
                      text = d.cause.empty() ? "no known kind of difference" : general(d.cause, d.name);
    auto at = std::find_if(kinds.begin(), kinds.end(),
                           [&](const Kind& k) { return k.name == name && k.text == text; });
    if (at == kinds.end()) at = kinds.insert(at, {.name = name, .text = text, .first = &d});
    ++at->n;
    if (d.error > at->error) at->error = d.error, at->explained = d.explained;
  }
  return kinds;
}

std::string kinds_text(const trace::WeightsDiff& diff) {
  std::map<std::string, int> all;
  for (const WeightDifference& d : diff.tensors) ++all[general(d.name, d.name)];
  std::string text;
  int shown = 0;
  const std::vector<Kind> kinds = kinds_of(diff);
  for (const Kind& k : kinds) {
    if (++shown > kShown) continue;
    const bool one = k.n == 1;  // then it has a layer
    const std::string what = one && !k.first->cause.empty() ? k.first->cause : k.text;
    text +=
        line("", printable(one ? k.first->name : k.name, 80) +
                     (one ? "" : fmt::format(" ({} of {})", k.n, all[k.name])) + ": " + printable(what, 300));
    if (std::isfinite(k.error))
      text += line("", fmt::format("  error {:.3g}; the formats explain {:.3g}", k.error, k.explained));
  }
  if (shown > kShown) text += line("", fmt::format("and {} more kinds", shown - kShown));
  return text;
}

std::string same_text(const trace::WeightsDiff& diff) {
  std::string text;
  std::map<std::pair<std::string, std::string>, std::pair<int, const WeightDifference*>> pairs;
  for (const WeightDifference& d : diff.tensors) {
    if (d.verdict != Verdict::quantisation) continue;
    auto& [n, worst] = pairs[{type_of(d.a), type_of(d.b)}];
    if (++n == 1 || d.score > worst->score) worst = &d;
  }
  for (const auto& [types, found] : pairs) {
    const auto& [n, worst] = found;
    text += line("ROUNDED",
                 fmt::format("{} of {} against {}: error up to {:.3g}, explained {:.3g} ({})", n, types.first,
                             types.second, worst->error, worst->explained, printable(worst->name, 80)));
  }
  std::map<std::string, int> conventions;
  for (const WeightDifference& d : diff.tensors) {
    if (!d.convention.empty()) ++conventions[d.convention];
  }
  for (const auto& [what, n] : conventions)
    text += line("CONVENTION", fmt::format("{} in {} tensors", what, n));
  return text;
}

std::string verdict_text(const trace::WeightsDiff& diff) {
  const int n = int(diff.tensors.size()), differ = diff.count(Verdict::differs),
            rounded = diff.count(Verdict::quantisation);
  if (diff.common == 0) return line("UNUSABLE", "the files have no tensor in common");
  if (differ > 0)
    return line("DIFFERS", fmt::format("{} of {} tensors; {}", differ, n,
                                       diff.unnamed() == 0 ? std::string("every cause is named")
                                                           : fmt::format("the causes of {} are named",
                                                                         differ - diff.unnamed())));
  return line("SAME", rounded == 0 ? fmt::format("{} tensors", n)
                                   : fmt::format("{} tensors, {} of them within what their formats round", n,
                                                 rounded));
}

ReportCell cell_of(const WeightDifference& d) {
  ReportCell c{.name = d.name,
               .score = d.error == 0 ? 0 : d.score,
               .floor = d.explained,
               .lead = kWeightVerdicts[int(d.verdict)]};
  if (d.name.ends_with(".weight")) c.name.resize(d.name.size() - 7);
  if (!d.cause.empty()) c.lead = "differs: " + d.cause;
  const auto fact = [&](const char* word, std::string text) { c.facts.emplace_back(word, std::move(text)); };
  fact("formats", type_of(d.a) + " and " + type_of(d.b));
  if (!d.convention.empty()) fact("convention", d.convention);
  if (!d.a || !d.b) return c;
  fact("error", fmt::format("{:.4g}", d.error)), fact("explained", fmt::format("{:.4g}", d.explained));
  fact("cosine", fmt::format("{:.9f}", d.cosine)), fact("second / first", fmt::format("{:.6g}", d.scale));
  if (d.row >= 0) {
    fact("largest", fmt::format("row {}, column {}", d.row, d.column));
    fact("first", fmt::format("{:.9g}", d.in_a)), fact("second", fmt::format("{:.9g}", d.in_b));
  }
  if (d.n_bad_rows > 0) fact("rows too far", std::to_string(d.n_bad_rows));
  return c;
}

}  // namespace

int weights_status(const trace::WeightsDiff& diff) {
  if (diff.common == 0) return kExitEvidence;
  if (diff.count(Verdict::differs) == 0) return 0;
  return diff.unnamed() == 0 ? 1 : 2;
}

std::string weights_text(const trace::WeightsDiff& diff) {
  return verdict_text(diff) + (diff.common == 0 ? "" : kinds_text(diff) + same_text(diff));
}

Json weights_json(const trace::WeightsDiff& diff) {
  static constexpr const char* kNames[] = {"same", "named", "diverges", "unusable"};
  Json j;
  j.set("verdict", kNames[weights_status(diff)]), j.set("common", diff.common);
  j.set("same", diff.count(Verdict::same)), j.set("quantisation", diff.count(Verdict::quantisation));
  j.set("differ", diff.count(Verdict::differs));
  Json::Array tensors;
  for (const WeightDifference& d : diff.tensors) {
    Json t;
    t.set("name", d.name), t.set("verdict", kWeightVerdicts[int(d.verdict)]);
    if (!d.cause.empty()) t.set("cause", d.cause);
    if (!d.convention.empty()) t.set("convention", d.convention);
    t.set("types", Json::Array{type_of(d.a), type_of(d.b)});
    if (d.a && d.b) {
      t.set("error", finite(d.error)), t.set("explained", finite(d.explained)),
          t.set("score", finite(d.score));
      t.set("cosine", finite(d.cosine)), t.set("scale", finite(d.scale));
      t.set("largest",
            Json::Object{
                {"row", d.row}, {"column", d.column}, {"first", finite(d.in_a)}, {"second", finite(d.in_b)}});
      Json::Array rows;
      for (int64_t r : d.bad_rows) rows.push_back(r);
      t.set("rows", std::move(rows)), t.set("n_rows", d.n_bad_rows);
    }
    tensors.push_back(std::move(t));
  }
  j.set("tensors", std::move(tensors));
  return j;
}

Report weights_page(const trace::WeightsDiff& diff, const trace::Weights& a, const trace::Weights& b) {
  static constexpr const char* kLevels[] = {"same", "named", "diverges", "unusable"};
  Report r{.title = "plumb diff --weights",
           .level = kLevels[weights_status(diff)],
           .verdict = {},
           .lines = report_lines(weights_text(diff)),
           .facts = {{"first", a.path()}, {"second", b.path()}},
           .unit = "1 = allowed",
           .pieces = {},
           .maps = {}};
  r.verdict = r.lines.front().first + " " + r.lines.front().second;
  r.lines.erase(r.lines.begin());
  r.maps.push_back(
      {.title = "Weights", .note = "Error over what the two number formats explain.", .cells = {}});
  for (const WeightDifference& d : diff.tensors) r.maps.back().cells.push_back(cell_of(d));
  const auto first = std::find_if(diff.tensors.begin(), diff.tensors.end(),
                                  [](const WeightDifference& d) { return d.verdict == Verdict::differs; });
  if (first != diff.tensors.end()) r.maps.back().cells[size_t(first - diff.tensors.begin())].first = true;
  return r;
}

}  // namespace plumb
