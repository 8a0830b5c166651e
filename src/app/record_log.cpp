// plumb record log: an engine's own log becomes an evidence file (docs/log-rules.md).
#include <fmt/format.h>

#include <filesystem>

#include "app/command.h"
#include "app/evidence.h"
#include "app/flags.h"
#include "base/error.h"
#include "trace/trace.h"

namespace plumb {
namespace {

struct RecordLogOptions {
  std::string log, rules, output;
};

void import(const RecordLogOptions& o) {
  if (std::filesystem::exists(o.output))
    throw Error({.code = "trace.exists",
                 .expected = "a name that is free",
                 .found = "a file or folder",
                 .where = {.file = o.output},
                 .remedy = "evidence is never overwritten"});
  const Json evidence = import_log(o.log, o.rules);
  const std::string text = dump(evidence, {.indent = 1}) + "\n";
  trace::Trace::parse(text, o.log);  // what was printed may be no evidence: a name or number out of range
  atomic_replace(o.output, text);
  const Json& log = *evidence.find("log");
  fmt::print(stderr, "{} of {} lines are known, {} records\n", dump(*log.find("matched")),
             dump(*log.find("lines")), evidence.find("records")->array()->size());
}

}  // namespace

void add_record_log(CLI::App& record) {
  CLI::App* c = record.add_subcommand("log", "What an engine printed, by rules");
  auto o = std::make_shared<RecordLogOptions>();
  c->add_option("LOG", o->log, "The engine's output")->required();
  flag(c, "--rules", o->rules, "What the lines mean; default: the one *.rules file beside the log");
  flag(c, "-o,--output", o->output, "The evidence file, JSON")->required();
  c->callback([o] { import(*o); });
}

}  // namespace plumb
