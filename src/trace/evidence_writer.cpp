#include "trace/evidence_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace plumb::trace {
namespace {

int64_t nodes_of(const Json& json) {
  int64_t n = 1;
  if (json.array()) {
    for (const Json& element : *json.array()) n += nodes_of(element);
  } else if (json.object()) {
    for (const auto& [key, member] : *json.object()) n += 1 + nodes_of(member);
  }
  return n;
}

}  // namespace

int64_t EvidenceWriter::nodes(Level level, int64_t tokens, int64_t heads, int64_t dim) {
  constexpr int64_t kNames = 24, kSummary = 48;  // value, op, shape ...; stats, head8, tail8
  const int64_t n_heads = std::max<int64_t>(1, heads);
  if (level == Level::full) return kNames + tokens * n_heads * dim;
  return kNames + kSummary + tokens + n_heads + (level == Level::sketch ? kSketch + 2 : 0);
}

void EvidenceWriter::spend(const Json& json, const std::string& text) {
  bytes_left_ -= int64_t(text.size()), nodes_left_ -= nodes_of(json);
  if (bytes_left_ >= 0 && nodes_left_ >= 0) return;
  throw Error({.code = "trace.too_large",
               .expected = "a trace within the limits of one JSON text",
               .found = bytes_left_ < 0 ? "more bytes" : "more numbers"});
}

void EvidenceWriter::add(Record record, std::span<const float> rows) {
  PLUMB_CHECK(text_.empty());
  for (float x : rows) record.data.push_back({x, 0});
  const Json json = to_json(record);
  std::string text = dump(json);
  spend(json, text);
  records_ += (records_.empty() ? "" : ",\n") + text;
}

void EvidenceWriter::finish(Json header) {
  std::string text = dump(header);
  spend(header, text);
  PLUMB_CHECK(text.ends_with('}') && !header.find("records"));
  text.pop_back();
  text_ = std::move(text) + ",\"records\":[\n" + std::exchange(records_, {}) + "]}\n";
}

}  // namespace plumb::trace
