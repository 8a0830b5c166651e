// Evidence as it comes: traces, evidence files, and logs with the rules that read them.
#pragma once

#include <string>
#include <vector>

#include "engine/model.h"
#include "trace/trace.h"

namespace plumb {

/// A trace folder or evidence file, or a log where `rules` (a file) is given or one *.rules lies beside it.
trace::Trace open_evidence(const std::string& path, const std::string& rules);

/// The engine of our own traces, but for the command.
Json own_engine(const Model& model, const std::string& arith);

/// What to ask a server that is named as evidence.
struct ServerQuestion {
  std::string prompt = "The capital of France is";
  int tokens = 16;
};

/// As open_evidence; also the prompts of `plumb probe` with their answers, each a run, and http://HOST:PORT,
/// which is asked. `path`: the model's.
std::vector<trace::Trace> open_evidence(const std::string& given, const std::string& rules,
                                        const Model& model, const std::string& path,
                                        const ServerQuestion& question);

/// The log as an evidence file's JSON.
Json import_log(const std::string& path, const std::string& rules);

}  // namespace plumb
