// What a plan must do at least, from shapes alone, and how measured times compare with it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "cpu/executor.h"
#include "cpu/probe.h"
#include "plan/plan.h"

namespace plumb {

/// Multiply-adds and bytes. A weight counts once per token, however many planes of activations it meets.
struct Work {
  double int8 = 0;       // products with integer weights
  double f32 = 0;        // products with float weights
  double attention = 0;  // scores and values
  double bytes = 0;      // of weights, read once per pass

  Work& operator+=(const Work& w);
  /// The time that multiplying takes at least: attention at the int8 rate, as if it could.
  double seconds(const MachineProbe& probe) const;
  double macs() const { return int8 + f32 + attention; }
};

/// `passes` passes over the weights with `rows` tokens in all, at consecutive positions from `first` on, and
/// `wanted` rows of logits.
struct Amount {
  int64_t passes = 0, rows = 0, wanted = 0, first = 0;
};
Work work_of(const Plan& plan, const Step& step, const Amount& r);
Work work_of(const Plan& plan, const Amount& r);

/// The times of a plan's steps, joined by kind and by what they compute in a layer, longest first.
struct StepGroup {
  std::string name;
  int steps = 0;
  double seconds = 0;
  Work work;
};
std::vector<StepGroup> group_steps(const Plan& plan, std::span<const StepTime> times, const Amount& r);

/// As a table and as JSON: share of the time, ms per pass, GB/s, GMAC/s, and the shares of the limits.
std::string step_table(const std::vector<StepGroup>& groups, const MachineProbe& probe, int64_t passes);
Json step_json(const std::vector<StepGroup>& groups, const MachineProbe& probe, int64_t passes);

}  // namespace plumb
