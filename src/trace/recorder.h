// Records a run of our own engine: taps write what they are shown into a trace.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine/runner.h"
#include "trace/measure.h"
#include "trace/writer.h"

namespace plumb::trace {

struct RunRequest {
  std::vector<int> tokens;  // the prompt
  int steps = 0;            // ids chosen greedily after it and fed back
  Level level = Level::full;
  /// Patterns of value names with * and ?, separated by commas; empty: all values but those inside
  /// attention, which a pattern with ".attn." names and only the references show.
  std::string only = {};
  RunnerOptions options = {};  // without taps
  Json engine = {};            // for the header
  std::string arithmetic = {};
  bool durable = true;    // else nothing waits for the disk
  std::string path = {};  // of the trace
};

/// A folder of its own among the temporary files, removed at the end. Throws Error "file.write".
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Matching {
  std::set<Value> values, attentions;  // attentions: those with a value inside that matches
  std::set<std::string> inner;
};

/// The values whose name matches one of the patterns; throws Error "usage.value" if a pattern matches none.
Matching matching_values(const Program& program, const std::string& patterns);

/// Whether `name` matches a pattern in which * stands for any text and ? for one character.
bool matches(std::string_view pattern, std::string_view name);

/// Runs and writes the trace. A value that is not finite ends the run with Error "numeric.nonfinite"; what
/// led there is in the trace all the same.
void record_run(const Model& model, const RunRequest& request);
/// The same into a sink.
void record_run(const Model& model, const RunRequest& request, RecordSink& sink);

}  // namespace plumb::trace
