// Safetensors, the part that traces use: https://huggingface.co/docs/safetensors
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/limits.h"
#include "trace/trace.h"

namespace plumb::trace {
namespace {

[[noreturn]] void refuse(const std::string& file, int64_t offset, const std::string& tensor,
                         std::string expected, std::string found) {
  throw Error({.code = "trace.shard",
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.file = file, .offset = offset, .tensor = printable(tensor)}});
}

ShardTensor parse_tensor(const std::string& name, const Json& j, std::span<const uint8_t> data,
                         const std::string& file) {
  ShardTensor t{.name = name, .dtype = {}, .shape = {}, .bytes = {}};
  const Json *dtype = j.find("dtype"), *shape = j.find("shape"), *offsets = j.find("data_offsets");
  if (!dtype || !dtype->text() || !shape || !shape->array() || !offsets || !offsets->array() ||
      offsets->array()->size() != 2 || shape->array()->size() > 8)
    refuse(file, -1, name, "dtype, shape and data_offsets", "another entry");
  t.dtype = *dtype->text();
  int64_t bytes = dtype_bytes(t.dtype);
  if (bytes == 0) refuse(file, -1, name, "dtype F32, F16, BF16 or F64", printable(t.dtype, 20));
  for (const Json& n : *shape->array()) {
    const int64_t size = n.integer().value_or(-1);
    if (size < 0 || size > INT32_MAX || (bytes *= size) > int64_t(1) << 31)
      refuse(file, -1, name, "a shape of at most 2 GiB", dump(*shape));
    t.shape.push_back(size);
  }
  const int64_t begin = (*offsets->array())[0].integer().value_or(-1),
                end = (*offsets->array())[1].integer().value_or(-1);
  if (begin < 0 || end < begin || end > int64_t(data.size()))
    refuse(file, -1, name, fmt::format("data_offsets within {} bytes", data.size()), dump(*offsets));
  if (end - begin != bytes)
    refuse(file, -1, name, fmt::format("{} bytes, as the shape says", bytes), std::to_string(end - begin));
  t.bytes = data.subspan(size_t(begin), size_t(bytes));
  return t;
}

}  // namespace

int64_t dtype_bytes(std::string_view dtype) {
  if (dtype == "F32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  return dtype == "F64" ? 8 : 0;
}

std::vector<ShardTensor> parse_shard(std::span<const uint8_t> bytes, const std::string& file) {
  uint64_t length = 0;
  if (bytes.size() < 8)
    refuse(file, 0, "", "8 bytes with the length of the header", std::to_string(bytes.size()));
  for (int i = 7; i >= 0; --i) length = length << 8 | bytes[size_t(i)];
  if (length > uint64_t(kMaxShardHeaderBytes) || length > bytes.size() - 8)
    refuse(
        file, 0, "",
        fmt::format("a header of at most {} bytes", std::min<size_t>(kMaxShardHeaderBytes, bytes.size() - 8)),
        std::to_string(length));
  const std::string text(reinterpret_cast<const char*>(bytes.data()) + 8, size_t(length));
  const Json header = parse_json(text, file);
  if (!header.object()) refuse(file, 8, "", "an object", "another value");
  std::vector<ShardTensor> tensors;
  for (const auto& [name, entry] : *header.object()) {
    if (name == "__metadata__") continue;
    tensors.push_back(parse_tensor(name, entry, bytes.subspan(8 + size_t(length)), file));
  }
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return tensors;
}

}  // namespace plumb::trace
