// Writes a trace folder: records and shards stream to a temporary folder, which takes its name when it is
// complete. Rows go straight to the file; a shard's index has its room in front of them.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "trace/trace.h"

namespace plumb::trace {

/// Where the records of a run go.
class RecordSink {
 public:
  virtual ~RecordSink() = default;
  /// Adds a record; `rows` is empty or holds the elements [tokens, heads * dim], stored as F32.
  virtual void add(Record record, std::span<const float> rows) = 0;
  /// Adds the header, in which what is said of the records is still missing.
  virtual void finish(Json header) = 0;
};

class Writer : public RecordSink {
 public:
  static constexpr int64_t kShardBytes = 64 << 20;  // of data, unless one tensor has more
  static constexpr int64_t kIndexBytes = 256 << 10;

  /// Throws Error "trace.exists" if there is something at `path` that is no trace, "file.write" if nothing
  /// can be written there.
  /// Not durable: nothing waits for the disk; for traces that are read once and removed.
  explicit Writer(std::string path, bool durable = true);
  /// Removes what was written unless finish() has been called.
  ~Writer() override;
  Writer(const Writer&) = delete;

  void add(Record record, std::span<const float> rows) override;
  /// Writes the header, with records and shards set, and gives the folder its name.
  void finish(Json header) override;

 private:
  struct Entry {
    std::string name;
    std::vector<int64_t> shape;
    int64_t begin, end;
  };
  void open_shard();
  void close_shard();

  std::string path_, folder_;
  std::unique_ptr<FILE, int (*)(FILE*)> records_;
  int64_t count_ = 0;
  int shard_ = -1;  // file descriptor
  int64_t shard_bytes_ = 0, index_bytes_ = 0;
  std::vector<Entry> entries_;
  Json::Array shards_;
  bool durable_;
  bool finished_ = false;
};

}  // namespace plumb::trace
