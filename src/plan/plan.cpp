// From fused steps to a plan: which forms of each value are needed, where they live, what each step costs.
#include "plan/plan.h"

#include <algorithm>

#include "base/error.h"
#include "base/overload.h"
#include "plan/arena.h"
#include "plan/fuse.h"
#include "plan/split.h"

namespace plumb {
namespace {

struct Uses {
  std::vector<Value> reads, writes;
};

Uses uses(const Step& step) {
  Uses u;
  const auto read = [&](Value v) {
    if (v >= 0) u.reads.push_back(v);
  };
  const auto row = [&](const RowStep& s) {
    read(s.x), read(s.residual);
    if (s.sum >= 0) u.writes.push_back(s.sum);
  };
  std::visit(Overload{
                 [&](const RopeTableStep&) {},
                 [&](const EmbedStep& s) { u.writes = {s.out}; },
                 [&](const RowStep& s) { row(s), u.writes.push_back(s.out); },
                 [&](const LinearStep& s) {
                   s.row ? row(*s.row) : read(s.x);
                   read(s.residual);
                   if (s.sum >= 0) u.writes.push_back(s.sum);
                   if (s.glu >= 0) u.writes.push_back(s.glu);
                   for (const LinearStep::Part& part : s.parts) {
                     if (s.sum < 0 && s.glu < 0) u.writes.push_back(part.out);
                   }
                 },
                 [&](const HeadsStep& s) {
                   for (const HeadsStep::Part& part : s.parts) {
                     read(part.x);
                     if (part.out != part.x) u.writes.push_back(part.out);
                   }
                 },
                 [&](const AttentionStep& s) { read(s.q), u.writes = {s.out}; },
                 [&](const GluStep& s) { read(s.gate), read(s.up), u.writes = {s.out}; },
                 [&](const TapStep& s) { read(s.v); },
                 [&](const GatherStep& s) { read(s.x), u.writes = {s.out}; },
             },
             step.what);
  return u;
}

bool all_quantised(const Program& p, const LinearStep& s) {
  return std::all_of(s.parts.begin(), s.parts.end(),
                     [&](const auto& part) { return quantised_input(p.weights[size_t(part.w)].format); });
}

// A row step whose output only the next step's matrices read, all of them in rounded form, joins that step.
std::vector<Step> with_rows_joined(const Program& p, std::vector<Step> steps, const PlanOptions& options) {
  std::vector<int> readers(p.nodes.size());
  for (const Node& n : p.nodes) {
    for (Value v : n.in) ++readers[size_t(v)];
  }
  std::vector<Step> out;
  for (Step& s : steps) {
    auto* linear = std::get_if<LinearStep>(&s.what);
    const auto* row = linear && !out.empty() ? std::get_if<RowStep>(&out.back().what) : nullptr;
    if (row && row->out == linear->x && (row->sum < 0 || row->sum != linear->residual) &&
        out.back().wanted == s.wanted && readers[size_t(row->out)] == int(linear->parts.size()) &&
        !options.observed.count(row->out) && !options.taps.count(row->out) && p.shape(row->out).heads == 1 &&
        all_quantised(p, *linear)) {
      linear->row = *row;
      s.values.insert(s.values.begin(), out.back().values.begin(), out.back().values.end());
      out.pop_back();
    }
    out.push_back(std::move(s));
  }
  return out;
}

// A tap follows the step that writes its value: nothing overwrites the rows before they have been shown.
std::vector<Step> with_taps(std::vector<Step> steps, const PlanOptions& options) {
  std::vector<Step> out;
  for (Step& s : steps) {
    std::vector<Value> writes = uses(s).writes;
    const bool wanted = s.wanted;
    out.push_back(std::move(s));
    std::sort(writes.begin(), writes.end());
    for (Value v : writes) {
      if (options.taps.count(v)) out.push_back({TapStep{v}, {}, wanted});
    }
  }
  return out;
}

void choose_rounding(const Program& p, Step& step, Rounding rounding) {
  auto* s = std::get_if<LinearStep>(&step.what);
  if (!s) return;
  const bool output = s->parts[0].out == ungathered(p, p.output);
  s->rounding = rounding == Rounding::refined && output ? Rounding::int16 : rounding;
}

// Finds lifetimes and places all buffers.
void lay_out(Plan& plan, int n_tables, const PlanOptions& options) {
  const Program& p = *plan.program;
  std::vector<int> buffer(p.nodes.size(), -1), table_buffer(size_t(n_tables), -1);
  std::vector<Lifetime> buffers;
  const int last_step = int(plan.steps.size()) - 1;

  std::vector<int> last_read(p.nodes.size(), -1);
  for (int i = 0; i <= last_step; ++i) {
    for (Value v : uses(plan.steps[size_t(i)]).reads) last_read[size_t(v)] = i;
  }
  // A matrix may compute the norm before it from the norm's input.
  for (int i = last_step; i >= 0 && options.rows_apart; --i) {
    const auto* row = std::get_if<RowStep>(&plan.steps[size_t(i)].what);
    if (row) last_read[size_t(row->x)] = std::max(last_read[size_t(row->x)], last_read[size_t(row->out)]);
  }
  for (int i = last_step, next = last_step; i >= 0; --i) {
    const auto* gather = std::get_if<GatherStep>(&plan.steps[size_t(i)].what);
    if (!gather) continue;
    last_read[size_t(gather->x)] = std::max(last_read[size_t(gather->x)], next);
    next = i;
  }
  for (Value v : options.observed) last_read[size_t(v)] = last_step + 1;
  if (options.observed.empty()) last_read[size_t(p.output)] = last_step + 1;

  for (int i = 0; i <= last_step; ++i) {
    const Step& s = plan.steps[size_t(i)];
    const int64_t rows = s.wanted ? plan.max_wanted : plan.max_tokens;
    const auto* matrix = std::get_if<LinearStep>(&s.what);
    for (Value v : uses(s).writes) {
      // A matrix writes all its parts, also those that nobody reads. A sum before it is left out then: rows
      // of sums are those of tokens, also where only wanted rows have a place.
      const bool part = matrix && matrix->glu < 0 && !(matrix->row && matrix->row->sum == v);
      const int last = std::max(last_read[size_t(v)], part ? i : -1);
      if (last < 0 || buffer[size_t(v)] >= 0) continue;
      buffer[size_t(v)] = int(buffers.size());
      buffers.push_back({i, last, rows * row_stride(p.shape(v).size()) * 4});
    }
    if (const auto* t = std::get_if<RopeTableStep>(&s.what)) {
      table_buffer[size_t(t->table)] = int(buffers.size());
      buffers.push_back({i, last_step + 1, int64_t(plan.max_tokens) * t->rope.dims * 4});
    }
  }
  plan.arena_bytes = place(buffers);
  const auto offset = [&](int b) { return b < 0 ? -1 : buffers[size_t(b)].offset; };
  for (int b : buffer) plan.places.push_back(offset(b));
  for (int b : table_buffer) plan.tables.push_back(offset(b));
}

int64_t bytes(const WeightRef& w) { return w.rows * row_bytes(w.format, w.columns); }

void set_cost(const Program& p, Step& step) {
  const auto weight = [&](Weight w) {
    if (w >= 0) step.weight_bytes += bytes(p.weights[size_t(w)]);
  };
  const auto row = [&](const RowStep& s) {
    weight(s.post), weight(s.norm);
    step.flops +=
        int64_t(p.shape(s.out).size()) * (4 * (s.post >= 0) + 4 * (s.norm >= 0) + (s.residual >= 0));
  };
  std::visit(Overload{
                 [&](const EmbedStep& s) {
                   const WeightRef& w = p.weights[size_t(s.table)];
                   step.weight_bytes = row_bytes(w.format, w.columns);  // one row per token
                 },
                 [&](const RowStep& s) { row(s); },
                 [&](const LinearStep& s) {
                   if (s.row) row(*s.row);
                   for (const LinearStep::Part& part : s.parts) {
                     weight(part.w), weight(part.bias);
                     step.flops += 2 * p.weights[size_t(part.w)].rows * p.weights[size_t(part.w)].columns;
                   }
                 },
                 [&](const HeadsStep& s) {
                   for (const HeadsStep::Part& part : s.parts) weight(part.norm);
                 },
                 [&](const AttentionStep& s) { step.flops = 4 * int64_t(p.shape(s.q).size()); },
                 [](const auto&) {},
             },
             step.what);
}

}  // namespace

bool quantised_input(Format format) {
  switch (format) {
    case Format::Q4_0:
    case Format::Q4_1:
    case Format::Q5_0:
    case Format::Q5_1:
    case Format::Q8_0:
    case Format::Q2_K:
    case Format::Q3_K:
    case Format::Q4_K:
    case Format::Q5_K:
    case Format::Q6_K:
    case Format::IQ4_NL:
    case Format::IQ4_XS:
    case Format::MXFP4:
      return true;
    default:
      return false;
  }
}

Plan make_plan(const Program& program, const PlanOptions& options) {
  PLUMB_CHECK(options.max_tokens >= 1 && options.max_wanted >= 1);
  if (const std::string field = fault_field(program); !field.empty()) {
    throw Error({.code = "plan.fault_field",
                 .expected = "a Program without faults",
                 .found = field,
                 .remedy = "only the reference computes faults: --arith ref32 or ref64"});
  }
  Plan plan;
  plan.program = &program;
  plan.max_tokens = options.max_tokens;
  plan.max_wanted = options.all_rows ? options.max_tokens : options.max_wanted;
  int n_tables = 0;
  plan.steps = fuse(program, options, &n_tables);
  if (options.fuse && !options.rows_apart)
    plan.steps = with_rows_joined(program, std::move(plan.steps), options);
  if (!options.taps.empty()) plan.steps = with_taps(std::move(plan.steps), options);
  for (Step& s : plan.steps) set_cost(program, s), choose_rounding(program, s, options.rounding);
  lay_out(plan, n_tables, options);
  return plan;
}

}  // namespace plumb
