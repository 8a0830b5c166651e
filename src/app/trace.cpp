// plumb trace: records the intermediate values of a run.
#include <fmt/format.h>

#include "app/command.h"
#include "app/evidence.h"
#include "app/fault_flag.h"
#include "app/flags.h"
#include "app/progress.h"
#include "base/error.h"
#include "trace/recorder.h"

namespace plumb {
namespace {

struct TraceOptions {
  ModelFlags model;
  FaultFlags fault;
  PromptFlags prompt;
  int steps = 0;
  std::string level = "full", only, output;
};

Json engine(const Model& model, const TraceOptions& o, const std::vector<std::string>& words) {
  Json e = own_engine(model, o.model.arith);
  e.set("command", Json::Array(words.begin(), words.end()));
  if (!o.fault.list.empty()) e.set("fault", o.fault.list);
  return e;
}

void record(TraceOptions& o) {
  o.prompt.require();
  catch_interrupt();
  ProgressBar bar;
  Model model(o.model.path(), o.model.options(bar.callback()));
  const FaultyRun faulty(o.fault, o.model, model);
  trace::RunRequest request{
      .tokens = faulty.ids(o.prompt, model), .steps = o.steps, .only = o.only, .path = o.output};
  request.level = o.level == "full"     ? trace::Level::full
                  : o.level == "sketch" ? trace::Level::sketch
                                        : trace::Level::stats;
  request.options = faulty.runner(o.model.runner(&interrupt_flag()));
  if (request.options.arith == Arith::fast && request.options.backend != Backend::cpu) {
    throw Error({.code = "usage.backend",
                 .expected = "--backend cpu, or --arith ref64 or ref32",
                 .found = "cuda, which shows no values",
                 .where = {.key = "--backend"}});
  }
  request.options.draft = 0;
  request.arithmetic = o.model.arith;
  request.engine = engine(model, o, {"plumb", "trace", "-m", o.model.path(), "--arith", o.model.arith});
  trace::record_run(model, request);
  bar.erase();
}

}  // namespace

void add_trace(CLI::App& root) {
  CLI::App* c = root.add_subcommand("trace", "Record the intermediate values of a run");
  auto o = std::make_shared<TraceOptions>();
  o->model.add(c);
  o->fault.add(c);
  o->prompt.add(c);
  flag(c, "--steps", o->steps, "Tokens to choose greedily after the prompt and to record as steps")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  flag(c, "--level", o->level, "What to keep of each value")
      ->check(CLI::IsMember({"stats", "sketch", "full"}))
      ->capture_default_str();
  flag(c, "--only", o->only, "Values to record: names with * and ?, separated by commas");
  flag(c, "-o,--output", o->output, "The trace, a folder")->required();
  c->callback([o] { record(*o); });
}

}  // namespace plumb
