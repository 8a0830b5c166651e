#include "trace/everything.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "trace/edits.h"

namespace plumb::trace {
namespace {

constexpr int64_t kMostLogits = 1 << 16;  // kept although nobody asked for them
constexpr int64_t kStatistics = 4;        // that come before elements

bool samples_elements(const Observed& o) {
  return std::any_of(o.what.begin(), o.what.end(),
                     [](const Quantity& q) { return q.kind == Quantity::Kind::element; });
}

bool fits(const Observed& o, const std::string& output) {
  return o.chosen.empty() && (o.last || o.whole_call) &&
         (!samples_elements(o) || (o.last && o.value == output));
}

int64_t place(const Quantity& q) {
  return q.kind == Quantity::Kind::element ? kStatistics + q.index : int64_t(q.kind) - 1;
}

}  // namespace

std::optional<Everything> Everything::behind(const Evidence& evidence, const Program& program) {
  const std::string& output = program.nodes[size_t(program.output)].name;
  const auto of_output = [&](const Observed& o) { return o.value == output; };
  const bool outputs_only = std::all_of(evidence.groups.begin(), evidence.groups.end(), of_output);
  bool rows = false, elements = program.shape(program.output).size() <= kMostLogits;
  std::vector<int> last_call(evidence.runs.size());
  for (const Observed& o : evidence.groups) {
    if (!fits(o, output)) return std::nullopt;
    last_call[size_t(o.run)] = std::max(last_call[size_t(o.run)], o.call);
    rows = rows || (of_output(o) && !o.last && o.tokens > 1);
    elements = elements || (of_output(o) && samples_elements(o));
  }
  Everything e;
  e.all_.runs = evidence.runs;
  std::map<std::tuple<int, int, bool, std::string>, int> at;
  for (size_t r = 0; r < evidence.runs.size(); ++r) {
    int64_t first = 0;
    for (int call = 0; call <= last_call[r]; ++call) {
      const int64_t count = evidence.runs[r].calls[size_t(call)];
      for (const Node& n : program.nodes) {
        if (n.name.empty() || (outputs_only && n.name != output)) continue;
        for (const bool last : {false, true}) {
          if (n.name == output && !last && count > 1 && !rows) continue;
          using enum Quantity::Kind;
          Observed o{.value = n.name,
                     .run = int(r),
                     .layer = layer_of(n.name),
                     .first = first,
                     .tokens = count,
                     .whole_call = !last,
                     .last = last,
                     .call = call};
          if (last) o.first += count - 1, o.tokens = 1;
          o.what = {{rms, 0}, {mean, 0}, {min, 0}, {max, 0}};
          const int64_t size =
              n.name == output && last && elements ? program.shape(program.output).size() : 0;
          for (int64_t i = 0; i < size; ++i) o.what.push_back({element, i});
          at[{int(r), call, last, n.name}] = int(e.all_.groups.size());
          e.all_.groups.push_back(std::move(o));
        }
      }
      first += count;
    }
  }
  for (const Observed& o : evidence.groups) {
    const auto found = at.find({o.run, o.call, o.last, o.value});
    if (found == at.end()) return std::nullopt;
    e.source_.push_back(found->second);
  }
  return e;
}

Prediction Everything::select(const Evidence& evidence, const Prediction& everything, int depth,
                              int n_layer) const {
  Prediction out(evidence.groups.size());
  for (size_t g = 0; g < out.size(); ++g) {
    const Observed& o = evidence.groups[g];
    const PredictedGroup& from = everything[size_t(source_[g])];
    out[g].computed = from.computed && within(o, depth, n_layer);
    if (!out[g].computed) continue;
    out[g].size = from.size;
    for (const Quantity& q : o.what) out[g].x.push_back(from.x[size_t(place(q))]);
    if (o.top || o.shifted) complete_row(o, std::span(from.x).subspan(kStatistics), out[g]);
  }
  return out;
}

}  // namespace plumb::trace
