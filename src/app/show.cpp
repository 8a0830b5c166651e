// plumb show: the Program of a model file, and the Plan that runs it.
#include "app/command.h"
#include "app/flags.h"
#include "engine/model.h"
#include "models/models.h"
#include "plan/plan.h"

namespace plumb {
namespace {

struct ShowOptions {
  std::string file;
  bool plan = false, no_fusion = false;
  int tokens = 1;
};

void show(const ShowOptions& o) {
  const Gguf file = Gguf::open(o.file);
  const Program program = build_program(file);
  if (o.plan) {
    print_out(print(make_plan(program, {.max_tokens = o.tokens, .fuse = !o.no_fusion})));
  } else {
    print_out(print(program));
  }
  for (const std::string& name : unused_tensors(file, program)) print_out("unused tensor " + name + "\n");
  flush_out();
}

}  // namespace

void add_show(CLI::App& root) {
  CLI::App* c =
      root.add_subcommand("show", "What a model computes: its operations, or the steps that run them");
  auto o = std::make_shared<ShowOptions>();
  c->add_option("file", o->file, "GGUF file")->required();
  flag(c, "--plan", o->plan, "The fused steps with their bytes and flops");
  flag(c, "--no-fusion", o->no_fusion, "With --plan: one step per operation");
  flag(c, "--tokens", o->tokens, "With --plan: tokens per call")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  c->callback([o] { show(*o); });
}

}  // namespace plumb
