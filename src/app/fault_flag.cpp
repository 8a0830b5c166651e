#include "app/fault_flag.h"

#include <fmt/format.h>

#include "base/error.h"

namespace plumb {

void FaultFlags::add(CLI::App* c) {
  flag(c, "--fault", list,
       "Be wrong on purpose: ids of 'plumb faults list', ID or ID=NUMBER, separated by commas");
}

FaultyRun::FaultyRun(const FaultFlags& flag, ModelFlags& flags, Model& model) {
  if (flag.list.empty()) return;
  const std::vector<trace::ChosenFault> chosen = trace::choose_faults(flag.list);
  if (flags.backend != "cpu" || flags.arith == "f32") {
    throw Error(
        {.code = "usage.fault",
         .expected = "the reference, which alone computes faults: --backend cpu with --arith ref32 or ref64",
         .found = flags.backend != "cpu" ? flags.backend : flags.arith,
         .where = {.key = "--fault"}});
  }
  if (flags.arith == "fast") flags.arith = "ref32";
  if (flags.spec != "none") flags.spec = "none";
  variant_ = trace::vary(model, chosen);
  model.run_as(variant_->program);
  for (const trace::ChosenFault& c : chosen) {
    const std::string with =
        c.fault->parameter.name ? fmt::format(" ({} {})", c.fault->parameter.name, c.parameter) : "";
    fmt::print(stderr, "fault {}{}: {}\n", full_name(*c.fault), with, c.fault->story);
  }
  fmt::print(stderr, "computed by the reference in {}\n", flags.arith == "ref64" ? "f64" : "f32");
  if (variant_->metadata.empty() || !model.file().find("tokenizer.ggml.tokens")) return;
  metadata_ = trace::changed_metadata(*variant_);
  changed_ = Gguf::parse(metadata_, model.file().path());
  tokenizer_ = Tokenizer::load(*changed_);
}

RunnerOptions FaultyRun::runner(RunnerOptions options) const {
  if (variant_) options.arithmetic = variant_->arithmetic;
  return options;
}

std::vector<int> FaultyRun::ids(const PromptFlags& prompt, const Model& model) const {
  return variant_ ? prompt.ids(*variant_) : prompt.ids(model);
}

void FaultyRun::sampler(SamplerOptions& options) const {
  if (variant_ && variant_->sampler) variant_->sampler(options);
}

const Tokenizer& FaultyRun::tokenizer(const Model& model) const {
  return tokenizer_ ? *tokenizer_ : model.tokenizer();
}

}  // namespace plumb
