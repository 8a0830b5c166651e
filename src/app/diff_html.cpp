#include "app/diff_html.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "app/diff_report.h"
#include "base/error.h"

namespace plumb {
namespace {

using trace::Diff;
using trace::Difference;

std::string lead_of(const Difference& d) {
  if (!d.finite) return "holds NaN or infinity";
  if (d.error == 0) return "bit for bit the same";
  if (!std::isfinite(d.score)) return "infinitely far above the floor";
  return d.score > 1 ? fmt::format("too much: {:.3g} times what noise explains", d.score)
                     : fmt::format("within noise: {:.2g} of what is allowed", d.score);
}

ReportCell cell_of(const Difference& d, const Model* model) {
  ReportCell c{.name = d.value, .score = d.score, .floor = d.floor, .lead = lead_of(d)};
  const auto fact = [&](const char* word, std::string text) { c.facts.emplace_back(word, std::move(text)); };
  if (const std::string op = trace::operation_of(model, d.value); !op.empty()) fact("operation", op);
  fact("error", fmt::format("{:.4g}", d.error)), fact("floor", fmt::format("{:.4g}", d.floor));
  if (d.print > 0) fact("printing", fmt::format("{:.4g}", d.print));
  fact("score", fmt::format("{:.4g}", d.score));
  if (d.from != "full") {
    fact("known by", d.from + " only");
  } else {
    fact("cosine", fmt::format("{:.9f}", d.cosine)), fact("ours / theirs", fmt::format("{:.6g}", d.scale));
  }
  if (d.token >= 0) {
    fact("largest", fmt::format("token {}, element {}", d.token, d.index));
    fact("theirs", fmt::format("{:.9g}", d.theirs)), fact("ours", fmt::format("{:.9g}", d.ours));
    fact("ULPs", fmt::format("{:.3g}", d.ulps));
  }
  fact("compared", fmt::format("{} tokens, {} numbers", d.tokens, d.elements));
  if (!d.gauge.empty()) fact("gauge", d.gauge + ", undone");
  c.by_token = d.by_token, c.by_head = d.by_head;
  return c;
}

ReportMap values_of(const Diff& d, const Model* model) {
  ReportMap map{.title = "Values",
                .note = fmt::format(
                    "Theirs against ours, as they come: what is wrong stays wrong behind it. Floor: {} ({}).",
                    d.profile, d.measured_floor ? "measured" : "assumed"),
                .cells = {}};
  map.cells.reserve(d.values.size());
  for (size_t i = 0; i < d.values.size(); ++i) {
    map.cells.push_back(cell_of(d.values[i], model));
    map.cells.back().first = int(i) == d.first;
  }
  return map;
}

ReportMap operations_of(const Diff& d, const Model& model) {
  ReportMap map{
      .title = "Operations, replayed",
      .note = fmt::format("Each computed again on the inputs that they recorded: a faulty one shows by "
                          "itself. Floor: {}.",
                          d.operation_profile),
      .cells = {}};
  map.cells.reserve(d.operations.size());
  for (size_t i = 0; i < d.operations.size(); ++i) {
    const trace::Replayed& r = d.operations[i];
    ReportCell c = cell_of(r.difference, &model);
    if (r.segment.size() > 1) {
      std::vector<std::string> names;
      names.reserve(r.segment.size());
      for (Value v : r.segment) names.push_back(model.program().nodes[size_t(v)].name);
      c.facts.emplace_back("computes", fmt::format("{}", fmt::join(names, ", ")));
    }
    c.excused = !r.habit.empty();
    if (c.excused) c.facts.emplace_back("by design", r.habit), c.lead = "by design: " + r.habit;
    c.first = !d.lit.empty() && d.lit.front() == int(i);
    map.cells.push_back(std::move(c));
  }
  return map;
}

std::string run_of(const trace::Trace& t) {
  const trace::Header& h = t.header();
  std::string text = t.path();
  for (const std::string* part : {&h.engine, &h.model, &h.arch, &h.arithmetic}) {
    if (!part->empty()) text += ", " + *part;
  }
  return text;
}

// A model whose tokenizer we lack still has ids.
std::vector<std::string> pieces_of(const std::vector<int>& tokens, const Model* model) {
  std::vector<std::string> pieces;
  pieces.reserve(tokens.size());
  const Tokenizer* tokenizer = nullptr;
  try {
    if (model) tokenizer = &model->tokenizer();
  } catch (const Error&) {
    tokenizer = nullptr;
  }
  for (int id : tokens) pieces.push_back(tokenizer ? tokenizer->piece(id, true) : fmt::format("id {}", id));
  return pieces;
}

}  // namespace

Report diff_page(const Diff& d, const trace::Trace& theirs, const trace::Trace* ours, const Model* model) {
  static constexpr const char* kLevels[] = {"same", "named", "diverges", "unusable"};
  Report r{.title = "plumb diff",
           .level = kLevels[int(d.verdict)],
           .verdict = {},
           .lines = report_lines(diff_text(d, model)),
           .facts = {},
           .unit = "1 = floor",
           .pieces = pieces_of(theirs.header().tokens, model),
           .maps = {}};
  if (!r.lines.empty()) {
    r.verdict = r.lines.front().first + " " + r.lines.front().second;
    r.lines.erase(r.lines.begin());
  }
  r.facts.emplace_back("theirs", run_of(theirs));
  r.facts.emplace_back("ours", ours    ? run_of(*ours)
                               : model ? model->file().path() + ", run in f64 on their tokens"
                                       : "");
  if (!d.values.empty()) r.maps.push_back(values_of(d, model));
  if (model && !d.operations.empty()) r.maps.push_back(operations_of(d, *model));
  return r;
}

}  // namespace plumb
