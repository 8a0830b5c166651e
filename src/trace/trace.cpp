#include "trace/trace.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "base/half.h"

namespace plumb::trace {
namespace {

[[noreturn]] void refuse(const char* code, const std::string& file, std::string key, std::string expected,
                         std::string found) {
  throw Error({.code = code,
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.file = file, .key = std::move(key)}});
}

template <class T>
T load(const uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// Elements [0, out.size()) behind p.
void decode_elements(const uint8_t* p, const std::string& dtype, std::span<double> out) {
  const auto each = [&](int64_t bytes, const auto& read) {
    for (double& x : out) x = read(p), p += bytes;
  };
  if (dtype == "F32") return each(4, [](const uint8_t* at) { return double(load<float>(at)); });
  if (dtype == "F64") return each(8, [](const uint8_t* at) { return load<double>(at); });
  if (dtype == "F16")
    return each(2, [](const uint8_t* at) { return double(half_to_float(load<uint16_t>(at))); });
  each(2, [](const uint8_t* at) { return double(bfloat16_to_float(load<uint16_t>(at))); });
}

std::vector<int64_t> shape_of(const Record& r) {
  if (r.heads > 0) return {r.tokens, r.heads, r.dim};
  return {r.tokens, r.dim};
}

}  // namespace

bool is_folder(const std::string& path) {
  struct stat s{};
  return ::stat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

Trace Trace::open(const std::string& path) {
  if (!is_folder(path)) return parse(read_file(path, kMaxJsonBytes), path);
  Trace t;
  t.path_ = path;
  const std::string name = path + "/trace.json";
  t.header_ = parse_header(parse_json(read_file(name, kMaxJsonBytes), name), name);
  const Json* count = t.header_.json.find("records");
  const int64_t records = count ? count->integer().value_or(-1) : -1;
  if (records < 0 || records > kMaxRecords)
    refuse("trace.header", name, "/records", fmt::format("a number of records up to {}", kMaxRecords),
           count ? "another value" : "none");
  if (const Json* shards = t.header_.json.find("shards")) t.open_shards(*shards);
  t.read_records(records);
  return t;
}

Trace Trace::parse(std::string_view text, const std::string& name) {
  return of(parse_json(text, name), name);
}

Trace Trace::of(const Json& json, const std::string& name) {
  Trace t;
  t.path_ = name;
  t.header_ = parse_header(json, name);
  const Json* records = json.find("records");
  if (!records || !records->array())
    refuse("trace.header", name, "/records", "the array of records of an evidence file",
           records && records->integer() ? "a count: this header belongs into a directory" : "none");
  for (size_t i = 0; i < records->array()->size(); ++i) {
    const std::string place = fmt::format("/records/{}", i);
    t.records_.push_back(parse_record((*records->array())[i], name, place));
    t.bind(t.records_.back(), name, place);
  }
  return t;
}

void Trace::open_shards(const Json& list) {
  const std::string header = path_ + "/trace.json";
  if (!list.array() || int64_t(list.array()->size()) > kMaxShards)
    refuse("trace.header", header, "/shards", fmt::format("an array of at most {}", kMaxShards),
           "another value");
  for (const Json& entry : *list.array()) {
    const std::string key = fmt::format("/shards/{}", files_.size());
    const Json *file = entry.find("file"), *bytes = entry.find("bytes");
    if (!file || !file->text() || file->text()->empty() || file->text()->find('/') != std::string::npos)
      refuse("trace.header", header, key, "the name of a file in this folder", "another value");
    const std::string name = path_ + "/" + *file->text();
    files_.push_back(MappedFile::open(name));
    const int64_t found = int64_t(files_.back().bytes().size());
    if (bytes && bytes->integer().value_or(-1) != found)
      refuse("trace.truncated", name, {}, fmt::format("{} bytes", dump(*bytes)), std::to_string(found));
    shards_.push_back(parse_shard(files_.back().bytes(), name));
  }
}

void Trace::read_records(int64_t count) {
  const std::string name = path_ + "/records.jsonl";
  const MappedFile file = MappedFile::open(name);
  if (int64_t(file.bytes().size()) > kMaxRecordsBytes)
    refuse("trace.too_large", name, {}, fmt::format("at most {} bytes", kMaxRecordsBytes),
           std::to_string(file.bytes().size()));
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  while (!rest.empty()) {
    const std::string place = fmt::format("line {}", records_.size() + 1);
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos)
      refuse("trace.truncated", name, place, "a line that ends", "the end of the file");
    if (int64_t(records_.size()) == count)
      refuse("trace.header", name, place, fmt::format("{} records, as trace.json says", count), "more");
    records_.push_back(parse_record(parse_json(rest.substr(0, end), name + " " + place), name, place));
    bind(records_.back(), name, place);
    rest.remove_prefix(end + 1);
  }
  if (int64_t(records_.size()) != count)
    refuse("trace.truncated", name, {}, fmt::format("{} records, as trace.json says", count),
           std::to_string(records_.size()));
}

void Trace::bind(const Record& r, const std::string& file, const std::string& place) {
  tensors_.push_back(nullptr);
  if (r.shard == 0) return;
  if (size_t(r.shard) > shards_.size())
    refuse("trace.record", file, place + "/shard", fmt::format("a shard from 1 to {}", shards_.size()),
           std::to_string(r.shard));
  const std::vector<ShardTensor>& shard = shards_[size_t(r.shard) - 1];
  const auto at = std::lower_bound(shard.begin(), shard.end(), r.tensor,
                                   [](const ShardTensor& t, const std::string& n) { return t.name < n; });
  if (at == shard.end() || at->name != r.tensor)
    refuse("trace.record", file, place + "/tensor", "the name of a tensor in that shard",
           printable(r.tensor));
  if (at->shape != shape_of(r))
    refuse("trace.record", file, place + "/shape", "the shape of its tensor in the shard", "another");
  tensors_.back() = &*at;
}

void Trace::read(const Record& r, int64_t from, std::span<double> out) const {
  if (r.shard == 0) {
    for (double& x : out) x = r.data[size_t(from++)].value;
    return;
  }
  const ShardTensor& t = *tensors_[size_t(&r - records_.data())];
  decode_elements(t.bytes.data() + from * dtype_bytes(t.dtype), t.dtype, out);
}

std::vector<double> Trace::rows(const Record& r, int64_t from, int64_t count) const {
  PLUMB_CHECK(r.full() && from >= 0 && count >= 0 && from + count <= r.tokens);
  const int64_t size = r.row_size();
  std::vector<double> out(size_t(count * size));
  const auto tagged = [](const std::vector<std::string>& gauges) {
    return std::find(gauges.begin(), gauges.end(), "heads_first") != gauges.end();
  };
  if (r.heads > 0 && (tagged(r.gauges) || tagged(header_.gauges))) {  // [heads, tokens, dim]
    for (int64_t t = 0; t < count; ++t) {
      for (int64_t head = 0; head < r.heads; ++head)
        read(r, (head * r.tokens + from + t) * r.dim,
             std::span(out).subspan(size_t(t * size + head * r.dim), size_t(r.dim)));
    }
    return out;
  }
  read(r, from * size, out);
  return out;
}

}  // namespace plumb::trace
