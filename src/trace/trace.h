// A trace in memory: what one run of a language model, by any engine, has recorded (docs/trace-format.md).
// Files are foreign text and bytes; whatever is wrong with them is an Error with its place.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"

namespace plumb::trace {

inline constexpr int64_t kMaxRecords = 1 << 20;
inline constexpr int64_t kMaxRecordsBytes = 256 << 20;  // of records.jsonl
inline constexpr int64_t kMaxLineBytes = 16 << 20;      // of one record
inline constexpr int64_t kMaxShards = 4096;
inline constexpr int64_t kMaxShardHeaderBytes = 16 << 20;
inline constexpr int64_t kMaxDataBytes = 256 << 20;  // of one record
inline constexpr int kSketch = 64;

/// A recorded number; unit: half a unit of the last digit where it was printed, 0 where it is exact.
struct Number {
  double value = 0, unit = 0;
};

enum class Stat { n, sum, mean, rms, min, max, absmax, argmax, nan, inf, q01, q50, q99 };
inline constexpr const char* kStatNames[] = {"n",      "sum", "mean", "rms", "min", "max", "absmax",
                                             "argmax", "nan", "inf",  "q01", "q50", "q99"};
inline constexpr int kStats = int(std::size(kStatNames));

struct Stats {
  std::array<std::optional<Number>, kStats> all;
  std::optional<Number>& operator[](Stat s) { return all[size_t(s)]; }
  const std::optional<Number>& operator[](Stat s) const { return all[size_t(s)]; }
  bool empty() const;
};

struct Record {
  std::string value, raw, op, type = "F32";
  int step = 0;
  int64_t first = -1;                   // position of the first token; -1: unknown
  int64_t tokens = 0;                   // rows; 0: unknown
  int64_t heads = 0;                    // 0: no axis for heads
  int64_t dim = 0;                      // of a head, or of the row
  bool last = false;                    // of the last token of its call, whatever its position
  int64_t token_id = -1;                // the row of a table, not of a position; -1: no such row
  std::vector<std::string> candidates;  // the values of which it is one, where the label does not say
  std::vector<std::string> gauges;
  Stats stats;
  std::vector<Number> rms_per_token, rms_per_head, head8, tail8, sketch;
  std::vector<Number> data;  // all elements, where they stand in the record itself
  std::vector<std::pair<int64_t, Number>> samples;
  int shard = 0;  // from 1; 0: none
  std::string tensor;

  int64_t row_size() const { return (heads > 0 ? heads : 1) * dim; }
  bool full() const { return shard > 0 || !data.empty(); }
  const std::string& name() const { return value.empty() ? raw : value; }
};

struct Header {
  std::string engine, model, arch, level, arithmetic;
  std::vector<int> tokens;
  int64_t prompt = 0;
  std::vector<int64_t> calls;
  std::vector<std::string> gauges;
  Json json;  // all of it
};

/// A tensor of a safetensors file: its bytes have the length that its shape asks for.
struct ShardTensor {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::span<const uint8_t> bytes;
};

bool is_folder(const std::string& path);

/// Throws Error "trace.shard" with the byte or the tensor. https://huggingface.co/docs/safetensors
std::vector<ShardTensor> parse_shard(std::span<const uint8_t> file, const std::string& name);

/// Bytes of an element; 0: not a type that traces use.
int64_t dtype_bytes(std::string_view dtype);

/// Throws Error "trace.record" with `place` as the key.
Record parse_record(const Json& json, const std::string& file, const std::string& place);
Json to_json(const Record& record);
Header parse_header(const Json& json, const std::string& file);

class Trace {
 public:
  /// A directory or an evidence file. Throws Error "trace.*", "json.*" or "file.*".
  static Trace open(const std::string& path);
  /// An evidence file's text.
  static Trace parse(std::string_view text, const std::string& name);
  static Trace of(const Json& evidence, const std::string& name);

  const Header& header() const { return header_; }
  const std::vector<Record>& records() const { return records_; }
  const std::string& path() const { return path_; }
  /// To give records their names; nothing else of them may change.
  std::vector<Record>& unnamed_records() { return records_; }

  /// Rows [from, from + count) of a full record, [count, row_size], in canonical order.
  std::vector<double> rows(const Record& record, int64_t from, int64_t count) const;

 private:
  void open_shards(const Json& list);
  void read_records(int64_t count);
  void read(const Record& record, int64_t from, std::span<double> out) const;  // its data, as stored
  void bind(const Record& record, const std::string& file, const std::string& place);

  std::string path_;
  Header header_;
  std::vector<Record> records_;
  std::vector<MappedFile> files_;
  std::vector<std::vector<ShardTensor>> shards_;  // sorted by name
  std::vector<const ShardTensor*> tensors_;       // by record; null: none
};

}  // namespace plumb::trace
