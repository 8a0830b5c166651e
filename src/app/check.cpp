// plumb check: what any correct run must satisfy, tested on a trace, an evidence file or a log; and, with
// --backend cuda, a device against the CPU.
#include "trace/check.h"

#include <fmt/format.h>

#include "app/check_report.h"
#include "app/command.h"
#include "app/evidence.h"
#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/progress.h"
#include "base/error.h"
#include "engine/backend_check.h"

namespace plumb {
namespace {

struct CheckOptions {
  ModelFlags model;
  std::string theirs, again, rules;
  bool json = false;
};

void examine_backend(const CheckOptions& o) {
  ProgressBar bar;
  const Model model(o.model.path(), o.model.options(bar.callback()));
  RunnerOptions device = o.model.runner(nullptr);
  device.n_ctx = 16, device.self_test = false;  // which would end it here
  RunnerOptions cpu = device;
  cpu.backend = Backend::cpu, cpu.device_layers = -1, cpu.fit = cpu.cuda_f16 = false;
  std::vector<int> tokens;
  for (int i = 0; i < 8; ++i) tokens.push_back((1 + 7919 * i) % model.n_vocab());
  const double most = most_difference(model.program(), device.cuda_f16);
  const auto found = first_disagreement(model, device, cpu, tokens, most);
  bar.erase();
  trace::Finding f;
  f.test = "backend", f.text = most > 0 ? "the device's logits lie where its roundings leave them"
                                        : "the device's logits have the CPU's bits";
  if (found) {
    f = {"backend", trace::Finding::Outcome::violated, model.program().nodes[size_t(found->value)].name,
         fmt::format("the first that differs from the CPU's, by {:.2g} of its norm", found->difference),
         true};
  }
  print_findings({f}, o.json);
  if (found) throw ExitStatus{1};
}

void examine(const CheckOptions& o) {
  if (o.model.backend != "cpu") return examine_backend(o);
  if (o.theirs.empty()) {
    throw Error({.code = "usage.check", .expected = "THEIRS, or --backend cuda", .found = "neither"});
  }
  ProgressBar bar;
  trace::Trace theirs = open_evidence(o.theirs, o.rules);
  std::optional<trace::Trace> again;
  std::optional<Model> model;
  if (!o.again.empty()) again = trace::Trace::open(o.again);
  if (!o.model.model.empty()) model.emplace(o.model.path(), o.model.options(bar.callback()));
  const std::vector<trace::Finding> findings = trace::check(
      {.theirs = theirs, .model = model ? &*model : nullptr, .again = again ? &*again : nullptr});
  bar.erase();
  print_findings(findings, o.json);
  if (const int status = findings_status(findings); status != 0) throw ExitStatus{status};
}

}  // namespace

void add_check(CLI::App& root) {
  CLI::App* c = root.add_subcommand("check", "Test what any correct run must satisfy, on a trace or a log");
  auto o = std::make_shared<CheckOptions>();
  c->add_option("THEIRS", o->theirs, "A trace, an evidence file, or a log with --rules");
  flag(c, "-m,--model", o->model.model, "The GGUF file that they ran");
  flag(c, "-t,--threads", o->model.threads, "Threads; default: one per core")->check(CLI::Range(0, 1024));
  flag(c, "--rules", o->rules, "What the lines of a log mean; default: the one *.rules file beside it");
  flag(c, "--again", o->again, "A trace of the same engine and tokens, cut into other calls");
  flag(c, "--json", o->json, "Print the findings as JSON");
  o->model.add_backend(c);
  o->model.add_cpu(c);
  c->callback([o] { examine(*o); });
}

}  // namespace plumb
