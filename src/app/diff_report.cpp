#include "app/diff_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"

namespace plumb {

std::string line(const char* head, const std::string& text) { return fmt::format("{:<12} {}\n", head, text); }

Json finite(double x) {
  return std::isfinite(x) ? Json(x) : Json(std::isnan(x) ? "nan" : x > 0 ? "inf" : "-inf");
}

namespace {

using trace::Diff;
using trace::Difference;

std::string times(double score) {
  if (!std::isfinite(score)) return "infinitely far above";
  return score >= 1000 ? fmt::format("{:.2g} x", score) : fmt::format("{:.3g} x", score);
}

// "3, 5-8": the positions or heads whose error is large, where some are and some are not.
std::string places(const std::vector<std::pair<int64_t, double>>& errors, double limit) {
  std::vector<std::pair<int64_t, int64_t>> runs;
  size_t large = 0;
  for (const auto& [at, error] : errors) {
    if (error <= limit) continue;
    ++large;
    if (!runs.empty() && runs.back().second + 1 == at) {
      runs.back().second = at;
    } else {
      runs.emplace_back(at, at);
    }
  }
  if (large == 0 || large == errors.size()) return {};
  std::vector<std::string> parts;
  for (const auto& [from, to] : runs) {
    if (parts.size() == 4) {
      parts.emplace_back("...");
      break;
    }
    parts.push_back(from == to ? std::to_string(from) : fmt::format("{}-{}", from, to));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string where(const Difference& d) {
  const double limit = std::max(4 * d.floor + d.print, d.error / 20);
  std::vector<std::pair<int64_t, double>> heads;
  for (size_t h = 0; h < d.by_head.size(); ++h) heads.emplace_back(int64_t(h), d.by_head[h]);
  const std::string tokens = places(d.by_token, limit), of_heads = places(heads, limit);
  std::string text;
  if (!tokens.empty()) text += "only tokens " + tokens;
  if (!of_heads.empty()) text += (text.empty() ? "only heads " : "; only heads ") + of_heads;
  return text;
}

// blk.3.attn_q and blk.4.attn_q are one kind.
std::string kind_of(const std::string& value) {
  const size_t dot = value.starts_with("blk.") ? value.find('.', 4) : std::string::npos;
  return dot != std::string::npos ? "blk.*" + value.substr(dot) : value;
}

std::string first_text(const Diff& d, const Model* model) {
  const Difference& v = d.values[size_t(d.first)];
  const auto lit = std::find_if(d.lit.begin(), d.lit.end(),
                                [&](int i) { return d.operations[size_t(i)].difference.value == v.value; });
  const Difference& judged = lit == d.lit.end() ? v : d.operations[size_t(*lit)].difference;
  const std::string op = trace::operation_of(model, v.value);
  std::string text = line("DIVERGES at", v.value + (op.empty() ? "" : "  (" + op + ")"));
  text += line("", fmt::format("error {:.3g} = {} {} ({}); {} values before it agree", judged.error,
                               times(judged.error / std::max(judged.floor, 1e-300)),
                               d.measured_floor ? "floor" : "assumed floor",
                               lit == d.lit.end() ? d.profile : d.operation_profile, d.first));
  if (v.from == "full") {
    text += line("", fmt::format("cosine {:.6f}; largest at token {}, element {}: {:.6g} there, {:.6g} here",
                                 v.cosine, v.token, v.index, v.theirs, v.ours));
  } else {
    text += line("", "known by " + v.from + " only");
  }
  if (const std::string at = where(judged); !at.empty()) text += line("", at);
  return text;
}

std::string replay_text(const Diff& d) {
  if (d.lit.empty()) return line("REPLAY", fmt::format("all {} operations agree", d.operations.size()));
  std::map<std::string, int> all, lit;
  std::vector<std::string> order;
  for (const trace::Replayed& r : d.operations) ++all[kind_of(r.difference.value)];
  for (int i : d.lit) {
    const std::string kind = kind_of(d.operations[size_t(i)].difference.value);
    if (++lit[kind] == 1) order.push_back(kind);
  }
  std::string text = line("REPLAY", fmt::format("{} of {} operations differ by themselves; the others agree",
                                                d.lit.size(), d.operations.size()));
  for (size_t i = 0; i < order.size() && i < 4; ++i)
    text += line("", fmt::format("{} ({} of {})", order[i], lit[order[i]], all[order[i]]));
  if (order.size() > 4) text += line("", fmt::format("and {} more kinds", order.size() - 4));
  return text;
}

std::string habits_text(const Diff& d) {
  std::map<std::pair<std::string, std::string>, int> habits;
  for (const trace::Replayed& r : d.operations) {
    if (!r.habit.empty()) ++habits[{kind_of(r.difference.value), r.habit}];
  }
  std::string text;
  for (const auto& [habit, n] : habits)
    text += line("BY DESIGN", fmt::format("{} of {}: {}", n, habit.first, habit.second));
  return text;
}

std::string same_text(const Diff& d) {
  const auto worst =
      std::max_element(d.values.begin(), d.values.end(),
                       [](const Difference& a, const Difference& b) { return a.score < b.score; });
  const std::string tokens = d.tokens == INT64_MAX ? "unknown tokens" : fmt::format("{} tokens", d.tokens);
  if (worst->error == 0)
    return line("SAME", fmt::format("{} values of {}, bit for bit", d.values.size(), tokens));
  return line("SAME", fmt::format("{} values of {}, within noise ({})", d.values.size(), tokens, d.profile)) +
         line("", fmt::format("largest: {} error {:.3g} = {:.2g} of what is allowed", worst->value,
                              worst->error, worst->score));
}

Json value_json(const Difference& d, const Model* model) {
  Json j;
  j.set("value", d.value), j.set("op", trace::operation_of(model, d.value)), j.set("from", d.from);
  j.set("tokens", d.tokens), j.set("error", finite(d.error)), j.set("floor", finite(d.floor));
  j.set("score", finite(d.score));
  if (!d.parts.empty()) j.set("noise", finite(d.noise));
  if (!d.gauge.empty()) j.set("gauge", d.gauge);
  if (d.from != "full") return j;
  j.set("cosine", d.cosine), j.set("scale", finite(d.scale));
  j.set("largest", Json::Object{{"token", d.token},
                                {"element", d.index},
                                {"theirs", d.theirs},
                                {"ours", d.ours},
                                {"ulps", d.ulps}});
  Json::Array tokens, heads;
  for (const auto& [position, error] : d.by_token) tokens.push_back(Json::Array{position, finite(error)});
  for (double error : d.by_head) heads.push_back(finite(error));
  j.set("by_token", std::move(tokens));
  if (!heads.empty()) j.set("by_head", std::move(heads));
  return j;
}

}  // namespace

std::string diff_text(const Diff& d, const Model* model) {
  std::string text;
  if (d.verdict == Diff::Verdict::unusable) return line("UNUSABLE", d.reason);
  if (d.token_at >= 0) text += line("TOKENS", d.reason + "; values are compared before it");
  if (d.values.empty()) return text;
  text += d.first < 0 ? same_text(d) : first_text(d, model);
  if (d.replayed) text += replay_text(d);
  text += habits_text(d);
  if (d.verdict == Diff::Verdict::named && d.token_at < 0) text += line("CAUSE", d.reason);
  std::map<std::string, int> gauges;
  for (const Difference& v : d.values) {
    if (!v.gauge.empty()) ++gauges[v.gauge];
  }
  for (const auto& [gauge, n] : gauges)
    text += line("GAUGE", fmt::format("{} undone in {} values", gauge, n));
  if (!d.names_only_theirs.empty())
    text += line("UNKNOWN", fmt::format("{} values of theirs, such as {}", d.names_only_theirs.size(),
                                        printable(d.names_only_theirs.front())));
  return text;
}

Json diff_json(const Diff& d, const Model* model) {
  static constexpr const char* kVerdicts[] = {"same", "named", "diverges", "unusable"};
  Json j;
  j.set("verdict", kVerdicts[int(d.verdict)]);
  if (!d.reason.empty()) j.set("reason", d.reason);
  j.set("tokens", d.tokens == INT64_MAX ? Json() : Json(d.tokens));
  j.set("token_at", d.token_at < 0 ? Json() : Json(d.token_at));
  j.set("first", d.first < 0 ? Json() : Json(d.values[size_t(d.first)].value));
  j.set("profile", d.profile), j.set("floor", d.measured_floor ? "measured" : "assumed");
  Json::Array values, operations, lit, unknown;
  for (const Difference& v : d.values) values.push_back(value_json(v, model));
  for (const trace::Replayed& r : d.operations) {
    Json o = value_json(r.difference, model);
    Json::Array segment;
    for (Value v : r.segment) segment.push_back(model->program().nodes[size_t(v)].name);
    o.set("segment", std::move(segment));
    if (!r.habit.empty()) o.set("habit", r.habit);
    operations.push_back(std::move(o));
  }
  for (int i : d.lit) lit.push_back(d.operations[size_t(i)].difference.value);
  for (const std::string& name : d.names_only_theirs) unknown.push_back(name);
  j.set("values", std::move(values));
  j.set("replay", d.replayed ? Json(std::move(operations)) : Json());
  j.set("replay_profile", d.operation_profile), j.set("differ", std::move(lit));
  j.set("only_theirs", std::move(unknown));
  return j;
}

}  // namespace plumb
