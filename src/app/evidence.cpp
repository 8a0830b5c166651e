#include "app/evidence.h"

#include <filesystem>
#include <vector>

#include "app/record.h"
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

std::vector<int> answer_ids(const Json& answer, const Model& model) {
  std::vector<int> ids;
  if (answer.text())
    return model.tokenizer().encode(*answer.text(), {.add_special = false, .parse_special = true});
  for (const Json& id : answer.array() ? *answer.array() : Json::Array())
    ids.push_back(int(id.integer().value_or(-1)));
  return ids;
}

// A run for each prompt of `plumb probe` that has an answer.
std::vector<trace::Trace> from_answers(const Json& probe, const std::string& path, const Model& model) {
  std::vector<trace::Trace> runs;
  const Json* prompts = probe.find("prompts");
  for (const Json& p : prompts && prompts->array() ? *prompts->array() : Json::Array()) {
    const Json *ids = p.find("ids"), *answer = p.find("answer");
    const std::vector<int> said = answer ? answer_ids(*answer, model) : std::vector<int>();
    if (!ids || !ids->array() || said.empty()) continue;
    Json::Array tokens = *ids->array();
    for (const int id : said) tokens.push_back(id);
    Json input, evidence;
    input.set("prompt", int64_t(ids->array()->size())), input.set("tokens", std::move(tokens));
    evidence.set("plumb_trace", 1), evidence.set("input", std::move(input)),
        evidence.set("records", Json::Array());
    runs.push_back(trace::Trace::parse(dump(evidence), path));
  }
  if (!runs.empty()) return runs;
  throw Error({.code = "trace.answers",
               .expected = "an \"answer\", ids or text, for at least one of its prompts",
               .found = "none",
               .where = {.file = path}});
}

// What a server says of the prompt: the log-probabilities behind it, and what it chooses from there on.
trace::Trace ask(const std::string& url, const std::string& model, const ServerQuestion& q) {
  const PrivateFolder folder;
  const std::string out = folder.path() + "/answer.json";
  run_recorder("http", {url, "-m", model, "-p", q.prompt, "-n", std::to_string(q.tokens), "-o", out}, {});
  const Json answer = parse_json(read_file(out, kMaxJsonBytes), out);
  Json given, evidence;
  for (const char* key : {"tokens", "prompt"}) given.set(key, *answer.find("input")->find(key));
  evidence.set("plumb_trace", 1), evidence.set("input", std::move(given));
  evidence.set("records", Json::Array{answer.find("records")->array()->front()});
  return trace::Trace::parse(dump(evidence), url);
}

}  // namespace

Json import_log(const std::string& path, const std::string& rules) {
  const std::string file = rules.empty() ? rules_beside(path) : rules;
  const trace::LogRules read = trace::LogRules::parse(read_file(file, trace::kMaxRulesBytes), file);
  return read.import(read_file(path, trace::kMaxLogBytes), path);
}

Json own_engine(const Model& model, const std::string& arith) {
  Json e;
  e.set("name", "plumb"), e.set("version", PLUMB_VERSION);
  e.set("backend", arith == "fast" ? std::string("cpu ") + name(model.isa()) : "reference");
  return e;
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

std::vector<trace::Trace> open_evidence(const std::string& given, const std::string& rules,
                                        const Model& model, const std::string& path,
                                        const ServerQuestion& question) {
  std::vector<trace::Trace> runs;
  if (given.starts_with("http://") || given.starts_with("https://")) {
    runs.push_back(ask(given, path, question));
    return runs;
  }
  std::error_code failed;
  if (given.ends_with(".json") && !fs::is_directory(given, failed)) {
    const Json json = parse_json(read_file(given, kMaxJsonBytes), given);
    if (json.find("plumb_probe")) return from_answers(json, given, model);
  }
  runs.push_back(open_evidence(given, rules));
  return runs;
}

}  // namespace plumb
