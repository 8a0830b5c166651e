// A Plan as text, for people and for golden files.
#include <fmt/format.h>

#include "plan/plan.h"

namespace plumb {
namespace {

const char* kind(const Step& s) {
  static constexpr const char* kNames[] = {"rope_table", "embed", "row", "linear", "heads",
                                           "attention",  "glu",   "tap", "gather"};
  static_assert(std::size(kNames) == std::variant_size_v<decltype(Step::what)>);
  return kNames[s.what.index()];
}

std::string row(const RowStep& r) {
  std::string k;
  if (r.first > 0) k += "+slice";
  if (r.scale != 1) k += "+scale";
  if (r.post >= 0) k += "+norm";
  if (r.residual >= 0) k += "+add";
  if (r.norm >= 0) k += "+norm";
  return k;
}

}  // namespace

std::string kind_of(const Step& s) {
  std::string k = kind(s);
  if (const auto* l = std::get_if<LinearStep>(&s.what)) {
    if (l->row) k = "row" + row(*l->row) + "+" + k;
    if (l->parts.size() > 1) k += fmt::format("*{}", l->parts.size());
    if (l->sum >= 0) k += "+add";
    if (l->glu >= 0) k += "+glu";
  }
  if (const auto* r = std::get_if<RowStep>(&s.what)) k += row(*r);
  return k;
}

std::string print(const Plan& plan) {
  const Program& p = *plan.program;
  std::string text = fmt::format("{} steps for up to {} tokens, arena {} bytes\n", plan.steps.size(),
                                 plan.max_tokens, plan.arena_bytes);
  text += fmt::format("{:>14} {:>14}  {}\n", "weight bytes", "flops/token", "step: values");
  int64_t bytes = 0, flops = 0;
  for (const Step& s : plan.steps) {
    std::string values;
    if (const auto* tap = std::get_if<TapStep>(&s.what)) values = " " + p.nodes[size_t(tap->v)].name;
    for (Value v : s.values) {
      values += " " + p.nodes[size_t(v)].name;
      if (plan.places[size_t(v)] < 0) values += ":-";
    }
    const bool per_key = std::holds_alternative<AttentionStep>(s.what);
    text += fmt::format("{:>14} {:>14}  {}{}:{}\n", s.weight_bytes,
                        fmt::format("{}{}", s.flops, per_key ? "/key" : ""), kind_of(s),
                        s.wanted ? " (wanted rows)" : "", values);
    bytes += s.weight_bytes;
    if (!per_key) flops += s.flops;
  }
  return text + fmt::format("{:>14} {:>14}  total without keys\n", bytes, flops);
}

}  // namespace plumb
