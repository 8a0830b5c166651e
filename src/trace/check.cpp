#include "trace/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "trace/labels.h"
#include "trace/lattice.h"

namespace plumb::trace {
namespace {

using Outcome = Finding::Outcome;

bool has_nonfinite(const Rows& rows, const Record& r, std::string& where) {
  for (Stat s : {Stat::nan, Stat::inf}) {
    if (r.stats[s] && r.stats[s]->value > 0)
      return where = fmt::format("{:.0f} are {}", r.stats[s]->value, kStatNames[int(s)]), true;
  }
  for (const auto& [index, n] : r.samples) {
    if (!std::isfinite(n.value)) return where = fmt::format("element {} is {}", index, n.value), true;
  }
  if (!r.full()) return false;
  for (int64_t t = 0; t < r.tokens; ++t) {
    const std::vector<double> row = rows.row({&r, t});
    const auto at = std::find_if(row.begin(), row.end(), [](double x) { return !std::isfinite(x); });
    if (at == row.end()) continue;
    where = fmt::format("token {}, element {} is {}", r.first + t, at - row.begin(), *at);
    return true;
  }
  return false;
}

void check_finite(const Rows& rows, std::vector<Finding>& out) {
  std::string where;
  for (const Record& r : rows.trace().records()) {
    if (!has_nonfinite(rows, r, where)) continue;
    out.push_back({"finite", Outcome::violated, r.name(),
                   fmt::format("the first value with NaN or infinity: {}", where), true});
    return;
  }
  out.push_back({"finite", Outcome::holds, "",
                 fmt::format("no NaN or infinity in {} records", rows.trace().records().size())});
}

std::string codes_text(const std::vector<int>& codes) {
  std::string text;
  for (size_t i = 0; i < codes.size() && i < 8; ++i) text += (i ? ", " : "") + std::to_string(codes[i]);
  return text;
}

// Elements 0 to 7 of a row of a weight, as the file holds them.
std::vector<float> row_of_file(const Model& model, const Record& r) {
  const Program& p = model.program();
  const Value v = p.find(r.value);
  const auto* embed = v < 0 ? nullptr : std::get_if<Embed>(&p.nodes[size_t(v)].op);
  if (!embed || r.token_id < 0) return {};
  const WeightRef& w = p.weights[size_t(embed->table)];
  if (r.token_id >= w.rows) return {};
  std::vector<float> row(size_t(w.columns));
  decode(w.format, w.data + r.token_id * row_bytes(w.format, w.columns), w.columns, row.data());
  return row;
}

// The printed elements in steps of the file's own block.
Finding against_row(const Record& r, const std::vector<float>& row, std::string_view format) {
  const size_t n = r.head8.size();
  double error = 0, unit = 0;
  for (size_t i = 0; i < n; ++i) {
    error = std::max(error, std::abs(r.head8[i].value - double(row[i])));
    unit = std::max(unit, r.head8[i].unit + std::abs(double(row[i])) * 1e-6);
  }
  if (error <= 2 * unit)
    return {"lattice", Outcome::holds, r.value,
            fmt::format("the {} printed elements of row {} are those of the file", n, r.token_id)};
  const size_t block = format == "Q6_K" || format == "Q3_K" || format == "Q2_K" ? 16 : 32;
  const Ruler ruler = ruler_of(std::span(row).first(std::min(block, row.size())));
  std::string theirs, ours;
  bool whole = ruler.step > 0;
  for (size_t i = 0; whole && i < n; ++i) {
    const double k = (r.head8[i].value - ruler.offset) / ruler.step;
    whole = std::abs(k - std::round(k)) < 0.02;
    theirs += fmt::format("{}{:.0f}", i ? ", " : "", k);
    ours += fmt::format("{}{:.0f}", i ? ", " : "", (double(row[i]) - ruler.offset) / ruler.step);
  }
  if (whole)
    return {"lattice", Outcome::violated, r.value,
            fmt::format("row {}: in steps of this {} block theirs are {}, the file's {}: scale and step are "
                        "right, the order or the bits of the codes are not",
                        r.token_id, format, theirs, ours),
            true};
  return {"lattice", Outcome::violated, r.value,
          fmt::format("row {} begins {:.6g}, the file's {:.6g}, and theirs are no multiples of this {} "
                      "block's step: another row, another layout, or a wrong scale",
                      r.token_id, r.head8[0].value, double(row[0]), format)};
}

}  // namespace

void check_lattice(const Trace& theirs, const Model* model, std::vector<Finding>& out) {
  for (const Record& r : theirs.records()) {
    if (r.token_id < 0 || r.head8.size() < 2) continue;
    std::string text;
    for (const Lattice& l : find_lattices(r.head8)) {
      if (l.solutions == 0 || l.chance > 0.01) continue;
      text += fmt::format(
          "{}as {} the codes {}", text.empty() ? "" : "; ", l.format->name,
          l.solutions == 1 ? fmt::format("{} (the only solution, step {:.8g})", codes_text(l.codes), l.step)
                           : fmt::format("have {} solutions", l.solutions));
    }
    if (!text.empty())
      out.push_back({"lattice", Outcome::note, r.name(),
                     fmt::format("the {} printed elements of row {} lie on a lattice: {}", r.head8.size(),
                                 r.token_id, text)});
    const std::vector<float> row = model ? row_of_file(*model, r) : std::vector<float>();
    if (row.size() >= r.head8.size() && !row.empty()) {
      const Program& p = model->program();
      const auto& embed = std::get<Embed>(p.nodes[size_t(p.find(r.value))].op);
      out.push_back(against_row(r, row, info(p.weights[size_t(embed.table)].format).name));
    }
  }
}

std::vector<Finding> check(const CheckRequest& request) {
  const std::string arch = request.model ? request.model->program().arch : request.theirs.header().arch;
  std::vector<Finding> out;
  for (const SettledLabel& l : settle_labels(request.theirs.unnamed_records(), arch))
    out.push_back({"label", Outcome::note, l.value, fmt::format("\"{}\" means this: {}", l.label, l.why)});
  const Rows rows(request.theirs);
  check_finite(rows, out);
  if (request.model) check_tokens(request.theirs, *request.model, out);
  check_lattice(request.theirs, request.model, out);
  check_values(rows, arch, out);
  check_rotation(rows, request.model, out);
  check_summaries(request.theirs, arch, out);
  check_samples(request.theirs, out);
  if (request.again) {
    const Rows again(*request.again);
    check_again(rows, again, out);
  }
  if (request.model) check_against_file(request.theirs, rows, *request.model, out);
  return out;
}

}  // namespace plumb::trace
