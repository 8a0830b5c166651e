// The report of `plumb inspect --json`.
#include <algorithm>

#include "app/inspect_report.h"
#include "gguf/value.h"

namespace plumb {
namespace {

constexpr int64_t kFirstElements = 8;  // of an array, without --full

Json element(const GgufValue& v, int64_t i) {
  if (v.type == GgufType::boolean) return flag_at(v, i);
  if (v.type == GgufType::f32) return float(real_at(v, i));
  if (v.type == GgufType::f64) return real_at(v, i);
  const std::optional<int64_t> n = integer_at(v, i);
  return n ? Json(*n) : Json(element_text(v, i));  // beyond 2^63 - 1 as text: few readers keep it exact
}

Json elements(const GgufValue& v, int64_t n) {
  Json::Array list;
  list.reserve(size_t(n));
  if (v.type == GgufType::string) {
    for (std::string_view s : strings_of(v, n)) list.emplace_back(s);
  } else {
    for (int64_t i = 0; i < n; ++i) list.push_back(element(v, i));
  }
  return list;
}

Json metadata_json(const GgufValue& v, bool full) {
  Json j;
  j.set("type", name(v.type));
  if (v.is_array) {
    j.set("count", v.count);
    j.set("offset", v.offset);
    j.set("values", elements(v, full ? v.count : std::min(v.count, kFirstElements)));
  } else {
    j.set("offset", v.offset);
    j.set("value", elements(v, 1).array()->front());
  }
  return j;
}

Json tensor_json(const GgufTensor& t) {
  Json j;
  j.set("name", t.name);
  j.set("type", info(t.format).name);
  Json::Array shape(t.ne, t.ne + t.n_dims);
  j.set("shape", std::move(shape));
  j.set("offset", t.offset);
  j.set("bytes", t.bytes);
  j.set("file", t.file);
  return j;
}

Json total_json(const FormatTotal& t) {
  Json j;
  j.set("type", info(t.format).name);
  j.set("tensors", t.tensors);
  j.set("elements", t.elements);
  j.set("bytes", t.bytes);
  j.set("bits_per_weight", t.bits_per_weight());
  return j;
}

}  // namespace

Json inspect_json(const Gguf& file, bool full) {
  Json::Array files(file.files().begin(), file.files().end()), tensors, sums;
  Json::Object metadata;
  for (const GgufValue& v : file.values()) metadata.emplace_back(std::string(v.key), metadata_json(v, full));
  for (const GgufTensor& t : file.tensors()) tensors.push_back(tensor_json(t));
  for (const FormatTotal& t : totals(file)) sums.push_back(total_json(t));
  Json j;
  j.set("files", std::move(files));
  j.set("version", file.version());
  j.set("alignment", file.alignment());
  j.set("bytes", file.file_bytes());
  j.set("metadata", std::move(metadata));
  j.set("tokenizer", tokenizer_summary(file));
  j.set("tensors", std::move(tensors));
  j.set("totals", std::move(sums));
  return j;
}

}  // namespace plumb
