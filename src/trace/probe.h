// A probe file: a tiny model whose own generated text names the bug of the engine that loads it. Every fault
// of the catalogue is simulated on it; the row of its head for the piece that names a fault is a classifier
// of the hidden state which that fault leaves.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "trace/faults.h"

namespace plumb::trace {

struct ProbeFileOptions {
  std::vector<Format> formats = {Format::Q8_0, Format::Q4_K, Format::Q6_K};  // of its matrices, in turn
  int threads = 1;
  std::atomic<bool>* cancel = nullptr;  // then Error "run.cancelled", and no file
  std::function<void(const char* what, double share)> progress = [](const char*, double) {};
};

/// What the file makes of a fault.
struct ProbeEntry {
  const Fault* fault;
  double parameter;
  int answer = -1;           // id of the piece that names it; -1: it cannot be named
  int step = 0;              // after how many answers "ok"
  bool fits = true;          // the model can have it
  std::string why_not = {};  // where it cannot be named
  double margin = 0;         // of the answer above the next, where an answer above all others would have 1
};

struct ProbeBook {
  std::vector<int> prompt;                         // ids
  std::vector<std::pair<int, std::string>> names;  // of classes: id and text
  std::vector<ProbeEntry> entries;  // in the order of the catalogue; parametric faults with several values
  double margin = 0;                // the least of a right engine
};

/// "F1", or "D1=1e-06" where the parameter is not the usual one: what `--fault` takes.
std::string id_of(const ProbeEntry& entry);

/// Writes the file and tells what it can name. Throws Error "file.write", "run.cancelled".
ProbeBook write_probe_file(const std::string& path, const ProbeFileOptions& options);

}  // namespace plumb::trace
