// plumb diagnose: which known bug makes a foreign engine print what it printed.
#include "trace/diagnose.h"

#include "app/check_report.h"
#include "app/command.h"
#include "app/diagnose_report.h"
#include "app/evidence.h"
#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/progress.h"
#include "app/terminal_report.h"
#include "base/error.h"
#include "trace/labels.h"

namespace plumb {
namespace {

struct DiagnoseOptions {
  ModelFlags model;
  std::vector<std::string> theirs;
  std::string rules, html;
  ServerQuestion question;
  int max_faults = 3;
  bool json = false, next = false;
};

// Without the weights: what the tests say that need none.
void examine_alone(const DiagnoseOptions& o) {
  std::vector<trace::Finding> findings;
  for (const std::string& given : o.theirs) {
    trace::Trace theirs = open_evidence(given, o.rules);
    for (trace::Finding& f : trace::check({.theirs = theirs})) findings.push_back(std::move(f));
  }
  print_findings(findings, o.json, "next      -m FILE  the weights that it ran: then faults can be tried\n");
  if (const int status = findings_status(findings); status != 0) throw ExitStatus{status};
}

void examine(const DiagnoseOptions& o) {
  if (o.model.model.empty()) return examine_alone(o);
  catch_interrupt();
  ProgressBar bar;
  const Model model(o.model.path(), o.model.options(bar.callback()));
  std::vector<trace::Trace> traces;
  for (const std::string& given : o.theirs) {
    for (trace::Trace& t : open_evidence(given, o.rules, model, o.model.path(), o.question))
      traces.push_back(std::move(t));
  }
  trace::DiagnoseRequest request{.theirs = {},
                                 .model = model,
                                 .cache = cache_folder("floors"),
                                 .max_faults = o.max_faults,
                                 .cancel = &interrupt_flag(),
                                 .progress = bar.callback()};
  for (trace::Trace& t : traces) {
    trace::settle_labels(t.unnamed_records(), model.program().arch);
    request.theirs.push_back(&t);
  }
  const trace::Diagnosis d = trace::diagnose(request);
  const std::optional<Next> next =
      o.next ? std::optional(trace::next_measurements(request, d)) : std::nullopt;
  bar.erase();
  if (!o.html.empty()) write_report(o.html, diagnosis_page(d, next ? &*next : nullptr, request));
  if (o.json) {
    print_out(dump(diagnosis_json(d, next ? &*next : nullptr), {.indent = 1, .ascii = true}) + "\n");
  } else {
    print_report(diagnosis_text(d, next ? &*next : nullptr), 13);
  }
  flush_out();
  static constexpr int kStatus[] = {0, 1, 2, kExitEvidence};
  if (const int status = kStatus[int(d.verdict)]; status != 0) throw ExitStatus{status};
}

}  // namespace

void add_diagnose(CLI::App& root) {
  CLI::App* c = root.add_subcommand("diagnose", "Name the bug that makes an engine print these numbers");
  auto o = std::make_shared<DiagnoseOptions>();
  c->add_option("EVIDENCE", o->theirs,
                "Traces, evidence files or logs of one engine, or its http://HOST:PORT")
      ->required();
  flag(c, "-m,--model", o->model.model,
       "The GGUF file that it ran; without it only tests that need no weights");
  flag(c, "-t,--threads", o->model.threads, "Threads; default: one per core")->check(CLI::Range(0, 1024));
  flag(c, "--rules", o->rules, "What the lines of a log mean; default: the one *.rules file beside it");
  flag(c, "-p,--prompt", o->question.prompt, "What a server is asked to continue");
  flag(c, "-n,--predict", o->question.tokens, "By how many tokens")->check(CLI::Range(1, 256));
  flag(c, "--max-faults", o->max_faults, "Faults that may act together")->check(CLI::Range(1, 3));
  flag(c, "--next", o->next, "Which one further number would tell the candidates apart");
  flag(c, "--html", o->html, "Writes a page with all numbers as the fault and as a right engine has them");
  flag(c, "--json", o->json, "Everything as JSON");
  c->callback([o] { examine(*o); });
}

}  // namespace plumb
