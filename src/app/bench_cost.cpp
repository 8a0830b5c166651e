#include "app/bench_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace plumb {
namespace {

// Keys that `rows` tokens from position `first` see in all.
double visible_keys(int window, int64_t first, int64_t rows) {
  double keys = 0;
  for (int64_t pos = first; pos < first + rows; ++pos)
    keys += double(window > 0 ? std::min<int64_t>(pos + 1, window) : pos + 1);
  return keys;
}

// "blk.7.attn_q" -> "attn_q": the same step of every layer has one name.
std::string without_layer(const std::string& name) {
  if (!name.starts_with("blk.")) return name;
  const size_t dot = name.find('.', 4);
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

std::string group_name(const Plan& plan, const Step& step) {
  std::string name = kind_of(step) + ":";
  for (Value v : step.values) name += " " + without_layer(plan.program->nodes[size_t(v)].name);
  return name;
}

double read_share(const StepGroup& g, const MachineProbe& probe) {
  return g.work.bytes / g.seconds / probe.read_rate();
}
double multiply_share(const StepGroup& g, const MachineProbe& probe) {
  return g.work.seconds(probe) / g.seconds;
}

}  // namespace

Work& Work::operator+=(const Work& w) {
  int8 += w.int8, f32 += w.f32, attention += w.attention, bytes += w.bytes;
  return *this;
}

double Work::seconds(const MachineProbe& probe) const {
  return (int8 + attention) / probe.int8_rate() + f32 / probe.f32_rate();
}

Work work_of(const Plan& plan, const Step& step, const Amount& r) {
  Work w;
  const Program& p = *plan.program;
  const double rows = double(step.wanted ? r.wanted : r.rows);
  if (std::holds_alternative<EmbedStep>(step.what)) {
    w.bytes = double(step.weight_bytes) * rows;
  } else {
    w.bytes = double(step.weight_bytes) * double(step.wanted ? std::min(r.passes, r.wanted) : r.passes);
  }
  if (const auto* l = std::get_if<LinearStep>(&step.what)) {
    for (const LinearStep::Part& part : l->parts) {
      const WeightRef& m = p.weights[size_t(part.w)];
      (quantised_input(m.format) ? w.int8 : w.f32) += rows * double(m.rows * m.columns);
    }
  } else if (const auto* a = std::get_if<AttentionStep>(&step.what)) {
    w.attention = 2 * double(p.shape(a->q).size()) * visible_keys(a->attention.window, r.first, r.rows);
  }
  return w;
}

Work work_of(const Plan& plan, const Amount& r) {
  Work w;
  for (const Step& s : plan.steps) w += work_of(plan, s, r);
  return w;
}

std::vector<StepGroup> group_steps(const Plan& plan, std::span<const StepTime> times, const Amount& r) {
  std::map<std::string, StepGroup> by_name;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    if (times[i].calls == 0) continue;
    const std::string name = group_name(plan, step);
    StepGroup& g = by_name[name];
    g.name = name, ++g.steps, g.seconds += times[i].seconds, g.work += work_of(plan, step, r);
  }
  std::vector<StepGroup> groups;
  for (auto& [name, group] : by_name) groups.push_back(std::move(group));
  std::sort(groups.begin(), groups.end(), [](const StepGroup& a, const StepGroup& b) {
    return a.seconds != b.seconds ? a.seconds > b.seconds : a.name < b.name;
  });
  return groups;
}

std::string step_table(const std::vector<StepGroup>& groups, const MachineProbe& probe, int64_t passes) {
  double total = 0;
  for (const StepGroup& g : groups) total += g.seconds;
  std::string text =
      fmt::format("| {:>6} | {:>9} | {:>5} | {:>7} | {:>8} | {:>8} | {:>10} | step: values |\n", "share",
                  "ms/pass", "steps", "GB/s", "of read", "GMAC/s", "of multiply");
  text += "| -----: | --------: | ----: | ------: | -------: | -------: | ----------: | ------------ |\n";
  for (const StepGroup& g : groups) {
    text += fmt::format(
        "| {:>5.1f}% | {:>9.3f} | {:>5} | {:>7.2f} | {:>7.1f}% | {:>8.2f} | {:>10.1f}% | {} |\n",
        100 * g.seconds / total, 1e3 * g.seconds / double(passes), g.steps, g.work.bytes / g.seconds * 1e-9,
        100 * read_share(g, probe), g.work.macs() / g.seconds * 1e-9, 100 * multiply_share(g, probe), g.name);
  }
  return text;
}

Json step_json(const std::vector<StepGroup>& groups, const MachineProbe& probe, int64_t passes) {
  Json list{Json::Array()};
  for (const StepGroup& g : groups) {
    Json row;
    row.set("step", g.name);
    row.set("steps", g.steps);
    row.set("ms_per_pass", 1e3 * g.seconds / double(passes));
    row.set("gb_per_s", g.work.bytes / g.seconds * 1e-9);
    row.set("read_share", read_share(g, probe));
    row.set("gmac_per_s", g.work.macs() / g.seconds * 1e-9);
    row.set("multiply_share", multiply_share(g, probe));
    list.push(std::move(row));
  }
  return list;
}

}  // namespace plumb
