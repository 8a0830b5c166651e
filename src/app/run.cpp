// plumb run: one prompt in, the model's continuation on standard output.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/command.h"
#include "app/fault_flag.h"
#include "app/flags.h"
#include "app/grammar_flags.h"
#include "app/mpi_flag.h"
#include "app/progress.h"
#include "app/sampler_flags.h"
#include "base/error.h"
#include "engine/generate.h"
#include "models/models.h"

namespace plumb {
namespace {

struct RunOptions {
  ModelFlags model;
  FaultFlags fault;
  PromptFlags prompt;
  GrammarFlags grammar;
  GenerateOptions generate;
  SamplerFlags sampler;
  MpiFlag mpi;
  bool quiet = false;
};

void report(const RunOptions& o, const Runner& runner, size_t prompt, const Generated& g) {
  const double rate = g.seconds > 0 ? double(g.ids.size()) / g.seconds : 0;
  const double prompt_rate = g.prompt_seconds > 0 ? double(prompt) / g.prompt_seconds : 0;
  std::string drafts;
  if (const DraftCounts d = runner.drafts(); d.drafted > 0)
    drafts = fmt::format("drafts {}/{}, ", d.accepted, d.drafted);
  fmt::print(stderr,
             "\nprompt {} tokens in {:.2f} s ({:.1f}/s), answer {} tokens in {:.2f} s ({:.1f}/s), context "
             "{}/{}, {}seed {}; {}\n",
             prompt, g.prompt_seconds, prompt_rate, g.ids.size(), g.seconds, rate, runner.length(),
             runner.n_ctx(), drafts, o.generate.sampler.seed, name(g.stop));
}

void warn_unused(const Model& model) {
  const std::vector<std::string> unused = unused_tensors(model.file(), model.program());
  if (unused.empty()) return;
  const size_t shown = std::min<size_t>(unused.size(), 8);
  fmt::print(stderr, "warning: {} tensors of the file are not used: {}{}\n", unused.size(),
             fmt::join(unused.begin(), unused.begin() + int64_t(shown), ", "),
             shown < unused.size() ? ", ..." : "");
}

void run(RunOptions& o, Comm* comm) {
  o.prompt.require();
  o.generate.sampler = o.sampler.sampler();
  o.grammar.check(o.generate.ignore_eos);
  catch_interrupt();
  ProgressBar bar;
  Model model(o.model.path(), o.model.options(bar.callback()));
  const FaultyRun faulty(o.fault, o.model, model);
  share_model(model, o.model, comm);
  RunnerOptions options = faulty.runner(o.model.runner(&interrupt_flag()));
  options.comm = comm;
  const auto runner = Runner::make(model, options);
  std::vector<int> ids = faulty.ids(o.prompt, model);
  if (!o.quiet) warn_unused(model);
  faulty.sampler(o.generate.sampler);
  o.generate.grammar = o.grammar.state(faulty.tokenizer(model));
  const Generated g = generate(*runner, faulty.tokenizer(model), ids, o.generate, [&](std::string_view text) {
    bar.erase();
    print_out(text);
    flush_out();
  });
  bar.erase();
  if (!o.quiet) report(o, *runner, ids.size(), g);
  if (g.stop == Stop::context_full) {
    fmt::print(stderr, "the context of {} tokens is full; raise it with -c (the model was trained with {})\n",
               runner->n_ctx(), model.program().n_ctx_train);
  }
  if (g.stop == Stop::cancelled) throw Error({.code = "run.cancelled", .found = "an interrupt"});
}

}  // namespace

void add_run(CLI::App& root) {
  CLI::App* c =
      root.add_subcommand("run", "Continue a prompt; the text goes to standard output")->alias("completion");
  auto o = std::make_shared<RunOptions>();
  o->model.add(c);
  o->fault.add(c);
  o->prompt.add(c);
  flag(c, "-n,--predict,--n-predict,--max-tokens", o->generate.n_predict,
       "Tokens to generate; -1: until the model ends")
      ->check(CLI::Range(-1, 1 << 30))
      ->capture_default_str();
  flag(c, "-r,--reverse-prompt", o->generate.stops, "Stop where this text appears; may be repeated")
      ->allow_extra_args(false);
  flag(c, "--ignore-eos", o->generate.ignore_eos, "Go on after the end-of-text token");
  flag(c, "--special", o->generate.special, "Show control tokens");
  flag(c, "-q,--quiet", o->quiet, "No statistics, no warnings");
  o->sampler.add(c);
  o->grammar.add(c);
  o->mpi.add(c);
  c->callback([o] { o->mpi.run(o->model, [&](Comm* comm) { run(*o, comm); }); });
}

}  // namespace plumb
