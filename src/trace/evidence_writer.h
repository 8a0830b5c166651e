// Writes a trace as an evidence file's text: one JSON object in memory, within the limits that its readers
// have.
#pragma once

#include <string>
#include <utility>

#include "trace/measure.h"
#include "trace/writer.h"

namespace plumb::trace {

class EvidenceWriter : public RecordSink {
 public:
  /// At most so many bytes, and so many values and keys: add() and finish() throw Error "trace.too_large"
  /// beyond them.
  EvidenceWriter(int64_t most_bytes, int64_t most_nodes) : bytes_left_(most_bytes), nodes_left_(most_nodes) {}

  void add(Record record, std::span<const float> rows) override;
  void finish(Json header) override;

  /// Whether finish() has been called.
  bool finished() const { return !text_.empty(); }
  /// The text, which leaves the writer.
  std::string take() { return std::exchange(text_, {}); }

  /// How many values and keys a record of such rows has, at most.
  static int64_t nodes(Level level, int64_t tokens, int64_t heads, int64_t dim);

 private:
  void spend(const Json& json, const std::string& text);

  int64_t bytes_left_, nodes_left_;
  std::string records_, text_;
};

}  // namespace plumb::trace
