#include "trace/diff.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "trace/habit.h"
#include "trace/inner.h"
#include "trace/recorder.h"

namespace plumb::trace {
namespace {

// The names of ours in their order, each once.
std::vector<std::string> names_of(const Trace& trace) {
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (const Record& r : trace.records()) {
    if (seen.insert(r.name()).second) names.push_back(r.name());
  }
  return names;
}

std::string names_pattern(const Model& model, const Trace& theirs) {
  std::string only;
  const auto add = [&](const std::string& name) {
    if (model.program().find(name) >= 0) only += (only.empty() ? "" : ",") + name;
  };
  for (const std::string& name : names_of(theirs)) {
    add(name);
    for (const std::string& part : parts_of_fused(name)) add(part);
    const auto inner = inner_value(name);
    const Value attention = inner ? model.program().find(inner->attention) : -1;
    if (attention < 0) continue;
    add(inner->attention);
    for (Value in : model.program().nodes[size_t(attention)].in) add(model.program().nodes[size_t(in)].name);
  }
  return only;
}

void compare_tokens(const std::vector<int>& theirs, const std::vector<int>& ours, Diff& d) {
  const size_t n = std::min(theirs.size(), ours.size());
  size_t same = 0;
  while (same < n && theirs[same] == ours[same]) ++same;
  d.tokens = int64_t(same);
  if (same < n) {
    d.token_at = int64_t(same);
    d.reason = fmt::format("token {} is {} there and {} here", same, theirs[same], ours[same]);
  }
}

// A norm without its weight and a scale inside q may be faults as well: they are gauges only if what reads
// the value agrees with ours better than the value itself does.
bool readers_agree(const Program& p, const Difference& gauged, const Difference& plain,
                   const std::vector<Difference>& values) {
  const Value v = p.find(gauged.value);
  for (const Difference& other : values) {
    const Value reader = p.find(other.value);
    if (reader < 0) continue;
    const std::vector<Value>& in = p.nodes[size_t(reader)].in;
    if (std::find(in.begin(), in.end(), v) != in.end() && other.error < plain.error / 4) return true;
  }
  return false;
}

void confirm_gauges(const Rows& theirs, const Rows& ours, const Model* model, Diff& d) {
  for (Difference& v : d.values) {
    // Of scores inside attention, the softmax that reads them tells.
    if (!model || inner_value(v.value) || (v.gauge != "norm_unweighted" && v.gauge != "q_scaled")) continue;
    const auto plain = compare_full(theirs, ours, v.value, Gauges({}), d.tokens);
    if (plain && !readers_agree(model->program(), v, *plain, d.values)) v = *plain;
  }
}

void compare_values(Rows& theirs, const Rows& ours, const Gauges& gauges, Diff& d) {
  const Program* program = gauges.model() ? &gauges.model()->program() : nullptr;
  for (const std::string& name : names_of(ours.trace())) {
    if (inner_value(name)) continue;  // with its attention
    for (Difference& v : compare_inner(program, theirs, ours, name, d.tokens))
      d.values.push_back(std::move(v));
    std::optional<Difference> v = compare_full(theirs, ours, name, gauges, d.tokens);
    if (!v) v = compare_summaries(theirs, ours, name, d.tokens);
    if (!v || v->tokens == 0) continue;
    d.values.push_back(std::move(*v));
  }
  confirm_gauges(theirs, ours, gauges.model(), d);
  for (const Difference& v : d.values) {
    if (v.gauge.empty() || inner_value(v.value)) continue;
    const Record& shape = *ours.full(v.value).begin()->second.record;
    gauges.remember(v, shape.heads, shape.dim, theirs);
  }
  for (Difference& v : d.values) {
    const auto& all = theirs.full(v.value);
    if (v.from == "full" && !all.empty() && all.begin()->second.piece > 0)
      v.gauge = v.gauge.empty() ? kQkvByHead : fmt::format("{}, {}", kQkvByHead, v.gauge);
  }
  const std::vector<std::string> known = names_of(ours.trace());
  for (const std::string& name : names_of(theirs.trace())) {
    const std::vector<std::string> parts = parts_of_fused(name);
    const auto inner = inner_value(name);
    const std::string& looked_for = parts.empty() ? name : parts.front();
    const bool found = inner ? std::any_of(d.values.begin(), d.values.end(),
                                           [&](const Difference& v) { return v.value == name; })
                             : std::find(known.begin(), known.end(), looked_for) != known.end();
    if (!found) d.names_only_theirs.push_back(name);
  }
}

// A cause that the numbers themselves tell: another value of ours, or ours times a constant.
std::string cause_of(const Rows& theirs, const Rows& ours, const Difference& d, int64_t positions) {
  if (!d.finite) return fmt::format("{} holds NaN or infinity", d.value);
  if (d.from != "full") return {};
  const double near = std::max(4 * d.floor, 0.02);
  const double rest = std::sqrt(std::max(0.0, 1 - d.cosine * d.cosine));
  if (d.cosine > 0 && rest < near && std::abs(std::log(d.scale)) > 2 * near)
    return fmt::format("{} is ours times {:.6g}", d.value, 1 / d.scale);
  const size_t dot = d.value.rfind('.');
  if (dot == std::string::npos) return {};
  for (const std::string& other : names_of(ours.trace())) {
    if (other == d.value || other.compare(0, dot + 1, d.value, 0, dot + 1) != 0) continue;
    const auto &a = theirs.full(d.value), &b = ours.full(other);
    if (a.empty() || b.empty() ||
        a.begin()->second.record->row_size() != b.begin()->second.record->row_size())
      continue;
    Comparison c(other, 1);
    for (const auto& [position, at] : b) {
      const auto there = a.find(position);
      if (there != a.end() && position < positions) c.add(position, theirs.row(there->second), ours.row(at));
    }
    const Difference like = c.result();
    if (like.tokens > 0 && like.error < near) return fmt::format("{} holds our {}", d.value, other);
  }
  return {};
}

void judge_all(const DiffRequest& request, const Floor& floor, Diff& d) {
  std::vector<Difference*> list;
  for (Difference& v : d.values) list.push_back(&v);
  d.profile = floor.profiles[judge(floor, false, list)];
  d.first = first_excess(d.values);
  if (!request.model || d.operations.empty()) return;
  list.clear();
  for (Replayed& r : d.operations) list.push_back(&r.difference);
  d.operation_profile = floor.profiles[judge(floor, true, list)];
  for (size_t i = 0; i < d.operations.size(); ++i) {
    if (d.operations[i].difference.score > 1) d.lit.push_back(int(i));
  }
}

// A floor measured on healthy activations is raised to what 8 bits and a cache in f16, or scores in bf16, do
// to theirs, where they compute so.
void raise_floors(const DiffRequest& request, const Rows& theirs, const std::vector<int>& tokens, Diff& d) {
  const bool bf16 = d.operation_profile == "bf16";
  if (!bf16 && !d.operation_profile.starts_with("q8")) return;
  std::vector<int> rest;
  for (int i : d.lit) {
    Replayed& r = d.operations[size_t(i)];
    r.difference.floor =
        std::max(r.difference.floor, rounding_error(*request.model, theirs, tokens, d.tokens, r, bf16));
    r.difference.score = score_of(r.difference);
    if (r.difference.score > 1) rest.push_back(i);
  }
  d.lit = std::move(rest);
}

// Differences of design are no faults: they are named and leave the list of those that are.
void excuse_habits(const DiffRequest& request, const Rows& theirs, Diff& d) {
  std::vector<int> rest;
  for (int i : d.lit) {
    Replayed& r = d.operations[size_t(i)];
    std::optional<Habit> habit = habit_of(request.model->program(), theirs, r, d.tokens);
    if (habit) habit->difference.floor = r.difference.floor;
    if (habit && habit->difference.tokens > 0 && score_of(habit->difference) <= 1) {
      r.habit = habit->what;
    } else {
      rest.push_back(i);
    }
  }
  const bool excused = rest.size() < d.lit.size();
  d.lit = std::move(rest);
  // What follows from them is explained where every later operation agrees on its own inputs.
  if (excused && d.lit.empty() && d.operations.size() + 1 >= d.values.size()) d.first = -1;
}

// With elements of every value, what a faulty operation did shows in its own replay: the first of those is
// where the runs part, however small its effect downstream.
void place(Diff& d) {
  if (d.lit.empty()) return;
  const std::string& value = d.operations[size_t(d.lit.front())].difference.value;
  for (size_t i = 0; i < d.values.size(); ++i) {
    if (d.values[i].value == value) d.first = int(i);
  }
}

Diff diff_traces(const DiffRequest& request, const Trace& ours_trace) {
  Rows theirs(request.theirs);
  const Rows ours(ours_trace);
  const Header &a = request.theirs.header(), &b = ours_trace.header();
  Diff d;
  if (a.tokens.empty() || b.tokens.empty()) {
    d.tokens = INT64_MAX;  // nothing is known about them: positions are all there is
  } else {
    compare_tokens(a.tokens, b.tokens, d);
  }
  if (request.model) {
    const Program& p = request.model->program();
    split_fused(theirs, p, [&](const std::string& blk) { return is_qkv_by_head(theirs, ours, p, blk); });
  }
  compare_values(theirs, ours, Gauges(b.arch.empty() ? a.arch : b.arch, request.model), d);
  if (d.token_at < 0 && d.values.empty()) {
    d.reason = "no value that both have";
    return d;
  }
  Floor floor;
  if (request.model) {
    d.operations = replay(*request.model, theirs, a.tokens, d.tokens, request.cancel),
    d.replayed = !d.operations.empty();
    replay_inner(*request.model, theirs, d.tokens, d.operations);
    floor = measure_floor(*request.model, a.tokens, request.cache, request.cancel), d.measured_floor = true;
  } else {
    floor = assumed_floor(names_of(ours_trace));
  }
  judge_all(request, floor, d);
  if (d.replayed) raise_floors(request, theirs, b.tokens, d);
  if (d.replayed) excuse_habits(request, theirs, d);
  place(d);
  d.verdict = Diff::Verdict::same;
  if (d.first >= 0) {
    d.verdict = Diff::Verdict::diverges;
    const std::string cause = cause_of(theirs, ours, d.values[size_t(d.first)], d.tokens);
    if (!cause.empty()) d.verdict = Diff::Verdict::named, d.reason = cause;
  }
  if (d.token_at >= 0) {
    d.verdict = Diff::Verdict::named;
    d.reason = fmt::format("token {} is {} there and {} here", d.token_at, a.tokens[size_t(d.token_at)],
                           b.tokens[size_t(d.token_at)]);
  }
  return d;
}

}  // namespace

std::string operation_of(const Model* model, const std::string& value) {
  const auto inner = inner_value(value);
  const Value v = model ? model->program().find(inner ? inner->attention : value) : -1;
  return v < 0 ? "" : name(model->program().nodes[size_t(v)].op);
}

Diff diff(const DiffRequest& request) {
  if (request.ours) return diff_traces(request, *request.ours);
  PLUMB_CHECK(request.model);
  const Header& header = request.theirs.header();
  Diff unusable;
  if (header.tokens.empty()) {
    unusable.reason = "the trace has no token ids, so nothing can be run";
    return unusable;
  }
  check_tokens(*request.model, header.tokens, 0, request.model->program().n_ctx_train);
  RunRequest run{.tokens = header.tokens, .only = names_pattern(*request.model, request.theirs)};
  if (run.only.empty()) {
    unusable.reason = "the trace has none of the model's values";
    return unusable;
  }
  run.options.arith = Arith::ref64, run.options.cancel = request.cancel, run.durable = false;
  const TemporaryFolder folder;
  run.path = folder.path() + "/ours.trace";
  record_run(*request.model, run);
  const Trace ours = Trace::open(run.path);
  return diff_traces(request, ours);
}

}  // namespace plumb::trace
