#include "app/check_report.h"

#include <fmt/format.h>

#include <algorithm>

#include "app/exit_codes.h"
#include "app/flags.h"
#include "app/terminal_report.h"
#include "base/error.h"
#include "base/json.h"

namespace plumb {
namespace {

using trace::Finding;

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

}  // namespace

void print_findings(const std::vector<Finding>& findings, bool json, const std::string& after) {
  if (json) {
    print_out(dump(json_of(findings), {.indent = 1, .ascii = true}) + "\n");
  } else {
    print_report(text_of(findings) + after, 24);
  }
  flush_out();
}

int findings_status(const std::vector<Finding>& findings) {
  bool violated = false, named = false;
  for (const Finding& f : findings) {
    const bool bad = f.outcome == Finding::Outcome::violated;
    violated = violated || bad, named = named || (bad && f.named);
  }
  return named ? 1 : violated ? 2 : findings.size() <= 1 ? kExitEvidence : 0;
}

}  // namespace plumb
