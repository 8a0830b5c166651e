// plumb logits: the logits of a prompt, or any named value of the model, as text or .npy.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "app/command.h"
#include "app/fault_flag.h"
#include "app/flags.h"
#include "app/mpi_flag.h"
#include "app/nearest.h"
#include "app/npy.h"
#include "app/progress.h"
#include "app/terminal_text.h"
#include "base/error.h"
#include "engine/sampler.h"

namespace plumb {
namespace {

struct LogitsOptions {
  ModelFlags model;
  FaultFlags fault;
  PromptFlags prompt;
  MpiFlag mpi;
  bool all = false, stats = false;
  int top = 10;
  std::string stop_after = "logits", output;
};

Value find_value(const Program& p, const std::string& asked) {
  if (const Value v = p.find(asked); v >= 0) return v;
  std::vector<std::string> names;
  for (const Node& n : p.nodes) names.push_back(n.name);
  names = nearest(asked, std::move(names), 3);
  throw Error({.code = "usage.value",
               .expected = fmt::format("a value of the model, such as {}", fmt::join(names, ", ")),
               .found = printable(asked),
               .where = {.key = "--stop-after"},
               .remedy = "'plumb show FILE' lists them"});
}

std::string statistics(std::span<const double> x) {
  double sum = 0, squares = 0, least = INFINITY, most = -INFINITY;
  for (double v : x) {
    sum += v, squares += v * v;
    least = std::min(least, v), most = std::max(most, v);
  }
  const double n = double(x.size());
  return fmt::format("rms {:.6f} min {:.6f} max {:.6f} mean {:.6f}", std::sqrt(squares / n), least, most,
                     sum / n);
}

void print_top(const Model& model, std::span<const double> row, int top) {
  std::vector<int> ids(row.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int(i);
  const size_t n = std::min(ids.size(), size_t(top));
  std::partial_sort(ids.begin(), ids.begin() + int64_t(n), ids.end(), [&](int a, int b) {
    return row[size_t(a)] != row[size_t(b)] ? row[size_t(a)] > row[size_t(b)] : a < b;
  });
  for (size_t i = 0; i < n; ++i) {
    print_out(fmt::format("{:>8} {:>12.6f}  {}\n", ids[i], row[size_t(ids[i])],
                          quote(model.tokenizer().piece(ids[i], true), 40)));
  }
}

void print_row(const Model& model, const LogitsOptions& o, Value value, int64_t position,
               std::span<const double> row) {
  const Node& node = model.program().nodes[size_t(value)];
  const bool logits = value == model.program().output;
  if (!logits || o.all || o.stats) {
    const std::string shape = node.shape.heads > 1 ? fmt::format("{}, {}", node.shape.heads, node.shape.dim)
                                                   : std::to_string(node.shape.dim);
    print_out(fmt::format("{} position {} shape [{}] {}\n", node.name, position, shape, statistics(row)));
  }
  if (logits) {
    print_top(model, row, o.top);
  } else {
    print_out(fmt::format("  {:.9g}{}\n", fmt::join(row.first(std::min<size_t>(row.size(), 8)), " "),
                          row.size() > 8 ? " ..." : ""));
  }
}

// The value that is asked for, if it is not the output.
std::set<Value> wanted_values(const LogitsOptions& o, const Program& p) {
  const Value v = find_value(p, o.stop_after);
  return v == p.output ? std::set<Value>() : std::set<Value>{v};
}

void logits(LogitsOptions& o, Comm* comm) {
  o.prompt.require();
  catch_interrupt();
  ProgressBar bar;
  Model model(o.model.path(), o.model.options(bar.callback()));
  const FaultyRun faulty(o.fault, o.model, model);
  share_model(model, o.model, comm, [&](const Program& p) { return wanted_values(o, p); });
  const Value value = find_value(model.program(), o.stop_after);
  const std::vector<int> ids = faulty.ids(o.prompt, model);
  RunnerOptions options = faulty.runner(o.model.runner(&interrupt_flag()));
  options.comm = comm;
  const auto runner = Runner::make(model, options);
  std::vector<double> values;
  const int64_t size = model.program().shape(value).size();
  const auto see = [&](int64_t position, std::span<const double> row) {
    if (o.output.empty()) {
      print_row(model, o, value, position, row);
    } else {
      values.insert(values.end(), row.begin(), row.end());
    }
  };
  if (value == model.program().output && !o.all) {
    if (o.model.arith == "ref64") {
      runner->observe(ids, value, false, see);
    } else {
      const std::span<const float> row = runner->decode(ids);
      see(runner->length() - 1, std::vector<double>(row.begin(), row.end()));
    }
  } else {
    runner->observe(ids, value, o.all, see);
  }
  bar.erase();
  if (o.output.empty()) return flush_out();
  const std::vector<int64_t> shape =
      o.all ? std::vector<int64_t>{int64_t(ids.size()), size} : std::vector<int64_t>{size};
  write_npy(o.output, values, shape, o.model.arith != "ref64");
}

}  // namespace

void add_logits(CLI::App& root) {
  CLI::App* c = root.add_subcommand("logits", "The logits of a prompt, or any named value");
  auto o = std::make_shared<LogitsOptions>();
  o->model.add(c);
  o->fault.add(c);
  o->prompt.add(c);
  flag(c, "--all", o->all, "Every token of the prompt, not only the last");
  flag(c, "--top", o->top, "How many of the largest logits to print")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  flag(c, "--stats", o->stats, "Also rms, min, max and mean");
  flag(c, "--stop-after", o->stop_after,
       "Compute only up to this value and print it ('plumb show' lists the names)")
      ->capture_default_str();
  flag(c, "-o,--output", o->output, "Write a NumPy file instead of text: float64 for ref64, else float32");
  o->mpi.add(c);
  c->callback([o] {
    o->mpi.run(
        o->model, [&](Comm* comm) { logits(*o, comm); },
        [&](const Program& p) { return wanted_values(*o, p); });
  });
}

}  // namespace plumb
