#include "app/evidence.h"

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "trace/log_rules.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

// The rules beside a log, if there is one file of them.
std::string rules_beside(const std::string& path) {
  std::vector<std::string> found;
  std::error_code failed;
  const fs::path folder = fs::path(path).parent_path();
  for (const auto& entry : fs::directory_iterator(folder.empty() ? "." : folder, failed)) {
    if (entry.path().extension() == ".rules") found.push_back(entry.path().string());
  }
  if (found.size() == 1) return found[0];
  throw Error({.code = "trace.rules",
               .expected = "--rules FILE, which says what the lines of this log mean",
               .found = found.empty() ? "no *.rules file beside it" : "several *.rules files beside it",
               .where = {.file = path}});
}

}  // namespace

Json import_log(const std::string& path, const std::string& rules) {
  const std::string file = rules.empty() ? rules_beside(path) : rules;
  const trace::LogRules read = trace::LogRules::parse(read_file(file, trace::kMaxRulesBytes), file);
  return read.import(read_file(path, trace::kMaxLogBytes), path);
}

trace::Trace open_evidence(const std::string& path, const std::string& rules) {
  std::error_code failed;
  if (fs::is_directory(path, failed)) return trace::Trace::open(path);
  const std::string text = read_file(path, kMaxJsonBytes);
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (rules.empty() && first != std::string::npos && text[first] == '{')
    return trace::Trace::parse(text, path);
  return trace::Trace::parse(dump(import_log(path, rules)), path);
}

}  // namespace plumb
