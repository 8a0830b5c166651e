// plumb check: what any correct run must satisfy, tested on a trace, an evidence file or a log.
#include "trace/check.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/command.h"
#include "app/evidence.h"
#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/progress.h"
#include "app/terminal_report.h"
#include "base/error.h"

namespace plumb {
namespace {

using trace::Finding;

struct CheckOptions {
  ModelFlags model;
  std::string theirs, again, rules;
  bool json = false;
};

constexpr const char* kOutcomes[] = {"holds", "violated", "note"};

std::string text_of(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& f : findings) {
    const char* mark = f.outcome == Finding::Outcome::violated ? "VIOLATED" : kOutcomes[int(f.outcome)];
    text += fmt::format("{:<9} {:<13} {}{}\n", mark, f.test, f.value.empty() ? "" : printable(f.value) + ": ",
                        f.text);
  }
  const auto violated = std::count_if(findings.begin(), findings.end(), [](const Finding& f) {
    return f.outcome == Finding::Outcome::violated;
  });
  text += violated == 0 ? fmt::format("no test of {} is violated\n", findings.size())
                        : fmt::format("{} of {} tests violated\n", violated, findings.size());
  return text;
}

Json json_of(const std::vector<Finding>& findings) {
  Json::Array list;
  for (const Finding& f : findings) {
    Json j;
    j.set("test", f.test), j.set("outcome", kOutcomes[int(f.outcome)]);
    if (!f.value.empty()) j.set("value", f.value);
    j.set("text", f.text), j.set("named", f.named);
    list.push_back(std::move(j));
  }
  Json j;
  j.set("findings", std::move(list));
  return j;
}

int status_of(const std::vector<Finding>& findings) {
  bool violated = false, named = false;
  for (const Finding& f : findings) {
    const bool bad = f.outcome == Finding::Outcome::violated;
    violated = violated || bad, named = named || (bad && f.named);
  }
  return named ? 1 : violated ? 2 : findings.size() <= 1 ? kExitEvidence : 0;
}

void examine(const CheckOptions& o) {
  ProgressBar bar;
  trace::Trace theirs = open_evidence(o.theirs, o.rules);
  std::optional<trace::Trace> again;
  std::optional<Model> model;
  if (!o.again.empty()) again = trace::Trace::open(o.again);
  if (!o.model.model.empty()) model.emplace(o.model.path(), o.model.options(bar.callback()));
  const std::vector<Finding> findings = trace::check(
      {.theirs = theirs, .model = model ? &*model : nullptr, .again = again ? &*again : nullptr});
  bar.erase();
  if (o.json) {
    print_out(dump(json_of(findings), {.indent = 1, .ascii = true}) + "\n");
  } else {
    print_report(text_of(findings), 24);
  }
  flush_out();
  if (const int status = status_of(findings); status != 0) throw ExitStatus{status};
}

}  // namespace

void add_check(CLI::App& root) {
  CLI::App* c = root.add_subcommand("check", "Test what any correct run must satisfy, on a trace or a log");
  auto o = std::make_shared<CheckOptions>();
  c->add_option("THEIRS", o->theirs, "A trace, an evidence file, or a log with --rules")->required();
  flag(c, "-m,--model", o->model.model, "The GGUF file that they ran");
  flag(c, "-t,--threads", o->model.threads, "Threads; default: one per core")->check(CLI::Range(0, 1024));
  flag(c, "--rules", o->rules, "What the lines of a log mean; default: the one *.rules file beside it");
  flag(c, "--again", o->again, "A trace of the same engine and tokens, cut into other calls");
  flag(c, "--json", o->json, "Print the findings as JSON");
  c->callback([o] { examine(*o); });
}

}  // namespace plumb
