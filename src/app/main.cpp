// plumb: subcommands; errors become messages and exit codes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "app/command.h"
#include "app/exit_codes.h"
#include "app/failure.h"
#include "app/flags.h"

namespace plumb {
namespace {

// Registered in the order of the help text.
constexpr void (*kCommands[])(CLI::App&) = {
    add_run,        add_logits,   add_inspect,       add_show,           add_tokenize,
    add_detokenize, add_bench,    add_batched_bench, add_perplexity,     add_trace,
    add_diff,       add_check,    add_record,        add_quantize,       add_faults,
    add_antidote,   add_diagnose, add_probe,         add_apply_template, add_chat,
    add_serve};

int usage_failure(const CLI::App& root, const CLI::ParseError& e) {
  if (e.get_exit_code() == 0) return root.exit(e);  // --help, --version
  std::fflush(stdout);
  const CLI::App* at = &root;
  std::string path = "plumb";
  while (!at->get_subcommands().empty()) at = at->get_subcommands().back(), path += " " + at->get_name();
  fmt::print(stderr, "plumb: {} [usage]; see '{} --help'\n", describe(root, *at, e), path);
  return kExitUsage;
}

int run(int argc, char** argv) {
  CLI::App root("Runs GGUF language models, and shows whether an engine computes what it should.", "plumb");
  root.set_version_flag("--version", "plumb " PLUMB_VERSION);
  root.require_subcommand(1);
  root.formatter(std::make_shared<HelpFormatter>());
  for (auto add : kCommands) add(root);
  try {
    std::vector<std::string> arguments = expand_short_names(argc, argv);
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    root.parse(std::move(arguments));
    return 0;
  } catch (const CLI::ParseError& e) {
    return usage_failure(root, e);
  } catch (...) {
    return report_failure();
  }
}

}  // namespace
}  // namespace plumb

int main(int argc, char** argv) {
  plumb::catch_lost_file();
  return plumb::run(argc, argv);
}
