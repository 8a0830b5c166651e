// From fused steps to a plan: which forms of each value are needed, where they live, what each step costs.
#include "plan/plan.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "plan/arena.h"
#include "plan/fuse.h"

namespace plumb {
namespace {

template <class... F>
struct Overload : F... {
  using F::operator()...;
};

enum class Form { f32, x8 };
struct Use {
  Value v;
  Form form;
};
struct Uses {
  std::vector<Use> reads;
  std::vector<Value> writes;   // in f32, where anybody needs that
  std::vector<Value> writes8;  // may also be written as int8
  std::vector<int> tables_read;
};

Uses uses(const Program& p, const Step& step, bool float_inputs) {
  Uses u;
  const auto read = [&](Value v) {
    if (v >= 0) u.reads.push_back({v, Form::f32});
  };
  std::visit(Overload{
                 [&](const RopeTableStep&) {},
                 [&](const EmbedStep& s) { u.writes = {s.out}; },
                 [&](const RowStep& s) {
                   read(s.x), read(s.residual);
                   u.writes = {s.out}, u.writes8 = {s.out};
                   if (s.sum >= 0) u.writes.push_back(s.sum);
                 },
                 [&](const LinearStep& s) {
                   for (const LinearStep::Part& part : s.parts) {
                     const bool int8 = !float_inputs && quantised_input(p.weights[size_t(part.w)].format);
                     const Form form = int8 ? Form::x8 : Form::f32;
                     u.reads.push_back({s.x, form});
                     if (s.sum < 0 && s.glu < 0) u.writes.push_back(part.out);
                   }
                   read(s.residual);
                   if (s.sum >= 0) u.writes = {s.sum};
                   if (s.glu >= 0) u.writes = {s.glu}, u.writes8 = {s.glu};
                 },
                 [&](const HeadsStep& s) {
                   for (const HeadsStep::Part& part : s.parts) {
                     read(part.x);
                     if (part.table >= 0) u.tables_read.push_back(part.table);
                     if (part.out != part.x) u.writes.push_back(part.out);
                   }
                 },
                 [&](const AttentionStep& s) {
                   read(s.q);
                   u.writes = {s.out};
                   if (s.writes_x8(p)) u.writes8 = {s.out};
                 },
                 [&](const GluStep& s) { read(s.gate), read(s.up), u.writes = {s.out}; },
                 [&](const QuantiseStep& s) { read(s.x), u.writes8 = {s.x}; },
             },
             step.what);
  return u;
}

bool contains(const std::vector<Value>& list, Value v) {
  return std::find(list.begin(), list.end(), v) != list.end();
}

// Adds a QuantiseStep after each step whose value is needed as int8 but that cannot write it so.
std::vector<Step> with_quantise(const Program& p, std::vector<Step> steps, bool float_inputs) {
  std::vector<bool> need8(p.nodes.size());
  for (const Step& s : steps) {
    for (const Use& r : uses(p, s, float_inputs).reads) {
      if (r.form == Form::x8) need8[size_t(r.v)] = true;
    }
  }
  std::vector<Step> out;
  for (Step& s : steps) {
    const Uses u = uses(p, s, float_inputs);
    out.push_back(std::move(s));
    for (Value v : u.writes) {
      if (!need8[size_t(v)] || contains(u.writes8, v)) continue;
      Step q{QuantiseStep{v}, {}};
      q.wanted = out.back().wanted;
      out.push_back(std::move(q));
    }
  }
  return out;
}

// Finds lifetimes and places all buffers.
void lay_out(Plan& plan, int n_tables, const PlanOptions& options) {
  const Program& p = *plan.program;
  struct Slot {
    std::array<int, 2> buffer = {-1, -1};  // by form
  };
  std::vector<Slot> slots(p.nodes.size());
  std::vector<int> table_buffer(size_t(n_tables), -1);
  std::vector<Lifetime> buffers;
  const int last_step = int(plan.steps.size()) - 1;

  std::vector<std::array<int, 2>> last_read(p.nodes.size(), {-1, -1});
  for (int i = 0; i <= last_step; ++i) {
    for (const Use& r : uses(p, plan.steps[size_t(i)], options.float_inputs).reads) {
      last_read[size_t(r.v)][size_t(r.form)] = i;
    }
  }
  // A matrix may compute the norm before it from the norm's input.
  for (int i = last_step; i >= 0 && options.float_inputs; --i) {
    const auto* row = std::get_if<RowStep>(&plan.steps[size_t(i)].what);
    if (row)
      last_read[size_t(row->x)][0] = std::max(last_read[size_t(row->x)][0], last_read[size_t(row->out)][0]);
  }
  for (Value v : options.observed) last_read[size_t(v)][0] = last_step + 1;
  if (options.observed.empty()) last_read[size_t(p.output)][0] = last_step + 1;

  const auto need = [&](Value v, Form form, int step, bool wanted) {
    int last = last_read[size_t(v)][size_t(form)];
    // A matrix writes all its parts, also those that nobody reads.
    const auto* matrix = std::get_if<LinearStep>(&plan.steps[size_t(step)].what);
    if (form == Form::f32 && matrix && matrix->glu < 0) last = std::max(last, step);
    int& buffer = slots[size_t(v)].buffer[size_t(form)];
    if (last < 0 || buffer >= 0) return;
    const int64_t rows = wanted ? plan.max_wanted : plan.max_tokens, size = p.shape(v).size();
    buffer = int(buffers.size());
    buffers.push_back({step, last, form == Form::f32 ? rows * row_stride(size) * 4 : x8_bytes(rows, size)});
  };
  for (int i = 0; i <= last_step; ++i) {
    const Step& s = plan.steps[size_t(i)];
    const Uses u = uses(p, s, options.float_inputs);
    for (Value v : u.writes) need(v, Form::f32, i, s.wanted);
    for (Value v : u.writes8) need(v, Form::x8, i, s.wanted);
    if (const auto* t = std::get_if<RopeTableStep>(&s.what)) {
      table_buffer[size_t(t->table)] = int(buffers.size());
      buffers.push_back({i, last_step + 1, int64_t(plan.max_tokens) * t->rope.dims * 4});
    }
  }
  plan.arena_bytes = place(buffers);
  const auto offset = [&](int buffer) { return buffer < 0 ? -1 : buffers[size_t(buffer)].offset; };
  for (const Slot& s : slots) plan.places.push_back({offset(s.buffer[0]), offset(s.buffer[1])});
  for (int b : table_buffer) plan.tables.push_back(offset(b));
}

int64_t bytes(const WeightRef& w) { return w.rows * row_bytes(w.format, w.columns); }

void set_cost(const Program& p, Step& step) {
  const auto weight = [&](Weight w) {
    if (w >= 0) step.weight_bytes += bytes(p.weights[size_t(w)]);
  };
  std::visit(Overload{
                 [&](const EmbedStep& s) {
                   const WeightRef& w = p.weights[size_t(s.table)];
                   step.weight_bytes = row_bytes(w.format, w.columns);  // one row per token
                 },
                 [&](const RowStep& s) {
                   weight(s.post), weight(s.norm);
                   step.flops = int64_t(p.shape(s.out).size()) *
                                (4 * (s.post >= 0) + 4 * (s.norm >= 0) + (s.residual >= 0));
                 },
                 [&](const LinearStep& s) {
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
  Plan plan;
  plan.program = &program;
  plan.max_tokens = options.max_tokens;
  plan.max_wanted = options.all_rows ? options.max_tokens : options.max_wanted;
  int n_tables = 0;
  plan.steps = with_quantise(program, fuse(program, options, &n_tables), options.float_inputs);
  for (Step& s : plan.steps) set_cost(program, s);
  lay_out(plan, n_tables, options);
  return plan;
}

}  // namespace plumb
