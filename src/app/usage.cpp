// What was wrong with a command line, in words a person can use.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/nearest.h"
#include "base/error.h"

namespace plumb {

std::string HelpFormatter::make_option_opts(const CLI::Option* option) const {
  if (option->get_type_size() == 0) return {};
  const std::string type = option->get_type_name(), value = option->get_default_str();
  return " " + type.substr(0, type.find(':')) + (value.empty() ? "" : "=" + value);
}

std::string describe(const CLI::App& root, const CLI::App& at, const CLI::ParseError& e) {
  const int code = e.get_exit_code();  // the name may be that of the subcommand
  if (code != int(CLI::ExitCodes::ExtrasError) && code != int(CLI::ExitCodes::RequiredError))
    return printable(e.what(), 400);
  std::vector<std::string> unknown = root.remaining(true), known;
  for (const CLI::Option* option : at.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    for (const std::string& name : option->get_snames()) known.push_back("-" + name);
  }
  for (const CLI::App* sub : at.get_subcommands([](const CLI::App*) { return true; }))
    known.push_back(sub->get_name());
  if (unknown.empty()) {
    return at.get_subcommands([](const CLI::App*) { return true; }).empty()
               ? printable(e.what(), 400)
               : "expected a command, such as run";
  }
  // The value of an unknown flag is left over as well: name the flag.
  const auto flag =
      std::find_if(unknown.begin(), unknown.end(), [](const std::string& u) { return u.starts_with('-'); });
  const std::string wrong = flag != unknown.end() ? *flag : unknown.front();
  const std::vector<std::string> near = nearest(wrong, known, 1);
  std::string text = fmt::format("{} is not known here", printable(wrong));
  if (!near.empty()) text += fmt::format("; did you mean {}?", near.front());
  return text;
}

int exit_code(std::string_view code) {
  const auto starts = [&](std::string_view prefix) { return code.substr(0, prefix.size()) == prefix; };
  if (code == "run.cancelled") return kExitInterrupted;
  if (starts("usage.") || starts("sampler.") || starts("token.") || starts("context.") || starts("text.") ||
      starts("grammar.") || starts("schema.") || starts("setting.") || starts("split."))
    return kExitUsage;
  if (code == "trace.exists") return kExitOutput;
  if (starts("trace.") || starts("json.") || starts("log.") || starts("weights.")) return kExitEvidence;
  if (code == "file.write" || starts("output.")) return kExitOutput;
  if (starts("gguf.") || starts("model.") || starts("tokenizer.") || starts("file.")) return kExitModel;
  if (starts("net.")) return kExitAddress;
  if (starts("base.")) return kExitFile;
  if (code == "quantize.again") return kExitUsage;
  if (starts("fault.")) return kExitModel;
  if (starts("quantize.")) return kExitModel;
  if (starts("memory.")) return kExitMemory;
  if (starts("numeric.")) return kExitNonfinite;
  return kExitFailure;
}

}  // namespace plumb
