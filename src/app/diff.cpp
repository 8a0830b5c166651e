// plumb diff: where two runs part.
#include "app/command.h"
#include "app/diff_html.h"
#include "app/diff_report.h"
#include "app/diff_weights.h"
#include "app/evidence.h"
#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/progress.h"
#include "app/terminal_report.h"
#include "base/error.h"
#include "trace/labels.h"

namespace plumb {
namespace {

struct DiffOptions {
  ModelFlags model;
  std::string theirs, ours, rules, html;
  bool json = false, weights = false;
};

// Whatever is wrong with one of the files, this comparison cannot be made: status 3.
trace::Weights open_weights(const std::string& path) {
  try {
    return trace::Weights::open(path);
  } catch (const Error& e) {
    throw Error({.code = "weights." + e.code(),
                 .expected = e.expected(),
                 .found = e.found(),
                 .where = e.where(),
                 .remedy = e.remedy()});
  }
}

void compare_weights(const DiffOptions& o) {
  if (o.ours.empty() || !o.model.model.empty()) {
    throw Error({.code = "usage.diff",
                 .expected = "two files, and no -m, with --weights",
                 .found = o.ours.empty() ? "one" : "-m",
                 .where = {.key = "OURS"}});
  }
  ProgressBar bar;
  trace::Weights a = open_weights(o.theirs), b = open_weights(o.ours);
  if (a.is_gguf() && !b.is_gguf()) b.adapt_to(a);
  if (b.is_gguf() && !a.is_gguf()) a.adapt_to(b);
  Pool pool(o.model.options(bar.callback()).threads);
  const trace::WeightsDiff d = trace::diff_weights(a, b, pool, bar.callback());
  bar.erase();
  if (!o.html.empty()) write_report(o.html, weights_page(d, a, b));
  print_out(o.json ? dump(weights_json(d), {.indent = 1, .ascii = true}) + "\n" : weights_text(d));
  flush_out();
  if (const int status = weights_status(d); status != 0) throw ExitStatus{status};
}

void compare(const DiffOptions& o) {
  if (o.weights) return compare_weights(o);
  if (o.ours.empty() == o.model.model.empty()) {
    throw Error({.code = "usage.diff",
                 .expected = "a second trace, or -m MODEL",
                 .found = o.ours.empty() ? "neither" : "both",
                 .where = {.key = "OURS"}});
  }
  ProgressBar bar;
  trace::Trace theirs = open_evidence(o.theirs, o.rules);
  std::optional<trace::Trace> ours;
  std::optional<Model> model;
  if (!o.ours.empty()) ours = trace::Trace::open(o.ours);
  if (!o.model.model.empty()) model.emplace(o.model.path(), o.model.options(bar.callback()));
  trace::settle_labels(theirs.unnamed_records(), model ? model->program().arch : theirs.header().arch);
  const trace::Diff d = trace::diff({.theirs = theirs,
                                     .ours = ours ? &*ours : nullptr,
                                     .model = model ? &*model : nullptr,
                                     .cache = cache_folder("floors")});
  bar.erase();
  const Model* m = model ? &*model : nullptr;
  if (!o.html.empty()) write_report(o.html, diff_page(d, theirs, ours ? &*ours : nullptr, m));
  if (o.json) {
    print_out(dump(diff_json(d, m), {.indent = 1, .ascii = true}) + "\n");
  } else {
    print_report(diff_text(d, m), 13);
  }
  flush_out();
  static constexpr int kStatus[] = {0, 1, 2, kExitEvidence};
  if (const int status = kStatus[int(d.verdict)]; status != 0) throw ExitStatus{status};
}

}  // namespace

void add_diff(CLI::App& root) {
  CLI::App* c = root.add_subcommand("diff", "Find where two runs part");
  auto o = std::make_shared<DiffOptions>();
  c->add_option("THEIRS", o->theirs, "A trace, an evidence file, or a log with --rules")->required();
  c->add_option("OURS", o->ours, "Another, if no model is given");
  flag(c, "-m,--model", o->model.model, "A GGUF file, which is run in f64 on their token ids; also replays");
  flag(c, "-t,--threads", o->model.threads, "Threads; default: one per core")->check(CLI::Range(0, 1024));
  o->model.add_cpu(c);
  flag(c, "--rules", o->rules, "What the lines of a log mean; default: the one *.rules file beside it");
  flag(c, "--json", o->json, "Everything as JSON");
  flag(c, "--weights", o->weights, "Compares the weights of two GGUF or safetensors files or folders");
  flag(c, "--html", o->html, "Writes a page with maps of all values and operations");
  c->callback([o] { compare(*o); });
}

}  // namespace plumb
