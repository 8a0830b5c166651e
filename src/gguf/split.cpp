#include "gguf/split.h"

#include <algorithm>

#include "base/limits.h"
#include "gguf/value.h"

namespace plumb {
namespace {

[[noreturn]] void refuse(const Part& part, std::string_view key, const char* code, std::string expected,
                         std::string found, std::string remedy = {}) {
  const GgufValue* v = part.find(key);
  throw Error(
      {.code = code,
       .expected = std::move(expected),
       .found = std::move(found),
       .where = {.file = part.file, .offset = v ? v->offset : part.metadata_end, .key = std::string(key)},
       .remedy = std::move(remedy)});
}

std::optional<int64_t> integer_of(const Part& part, std::string_view key, int64_t min, int64_t max) {
  const GgufValue* v = part.find(key);
  if (!v) return std::nullopt;
  const std::string expected = fmt::format("an integer from {} to {}", min, max);
  if (v->is_array || !is_integer(v->type)) {
    refuse(part, key, "gguf.key_type", expected,
           std::string(v->is_array ? "an array of " : "") + name(v->type));
  }
  const std::optional<int64_t> n = integer_at(*v, 0);
  if (!n || *n < min || *n > max) refuse(part, key, "gguf.key_range", expected, element_text(*v, 0));
  return n;
}

int64_t require(const Part& part, std::string_view key, int64_t min, int64_t max) {
  const std::optional<int64_t> n = integer_of(part, key, min, max);
  if (!n)
    refuse(part, key, "gguf.key_missing", fmt::format("an integer from {} to {}", min, max),
           "no such key up to the end of the metadata");
  return *n;
}

// Five digits or nothing.
std::optional<int64_t> digits(std::string_view s) {
  int64_t n = 0;
  for (char c : s) {
    if (c < '0' || c > '9') return std::nullopt;
    n = n * 10 + (c - '0');
  }
  return n;
}

bool same_value(const GgufValue& a, const GgufValue& b) {
  return a.type == b.type && a.is_array == b.is_array && a.count == b.count &&
         std::equal(a.bytes.begin(), a.bytes.end(), b.bytes.begin(), b.bytes.end());
}

// Metadata comes from the first part; a later one may repeat it, not add to it or contradict it.
void check_metadata(const Part& first, const Part& part) {
  for (const GgufValue& v : part.values) {
    if (v.key.starts_with("split.") || v.key == "general.alignment") continue;
    const GgufValue* same = first.find(v.key);
    if (same && same_value(*same, v)) continue;
    refuse(part, v.key, "gguf.split_metadata", fmt::format("the metadata of the first part, {}", first.file),
           same ? "another value" : "a key that it lacks");
  }
}

}  // namespace

std::optional<SplitName> parse_split_name(std::string_view path) {
  constexpr std::string_view pattern = "-00001-of-00001.gguf";
  if (path.size() <= pattern.size()) return std::nullopt;
  const std::string_view end = path.substr(path.size() - pattern.size());
  const std::optional<int64_t> part = digits(end.substr(1, 5)), count = digits(end.substr(10, 5));
  if (end[0] != '-' || end.substr(6, 4) != "-of-" || end.substr(15) != ".gguf") return std::nullopt;
  if (!part || !count || *part < 1 || *part > *count) return std::nullopt;
  return SplitName{std::string(path.substr(0, path.size() - pattern.size())), *part, *count};
}

std::string split_path(const std::string& prefix, int64_t part, int64_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, part, count);
}

int64_t split_count(const Part& part) {
  return std::max<int64_t>(1, integer_of(part, "split.count", 0, kMaxGgufParts).value_or(1));
}

void check_split(const Part& part, int64_t no, int64_t count) {
  const int64_t found_count = require(part, "split.count", 1, kMaxGgufParts);
  if (found_count != count) {
    refuse(part, "split.count", "gguf.split_count", fmt::format("{} as in the first part", count),
           fmt::format("{}", found_count));
  }
  const int64_t found = require(part, "split.no", 0, kMaxGgufParts - 1);
  if (found != no) {
    refuse(part, "split.no", "gguf.split_order", fmt::format("{}: part {} of {}", no, no + 1, count),
           fmt::format("{}", found));
  }
}

void check_parts(std::span<const Part> parts) {
  const Part& first = parts.front();
  int64_t tensors = 0;
  for (const Part& part : parts) {
    tensors += int64_t(part.tensors.size());
    if (&part != &first) check_metadata(first, part);
  }
  if (tensors > kMaxGgufTensors) {
    refuse(first, "split.tensors.count", "gguf.too_many_tensors",
           fmt::format("at most {} tensors", kMaxGgufTensors), fmt::format("{} in all parts", tensors));
  }
  if (parts.size() == 1) return;
  const int64_t announced = require(first, "split.tensors.count", 0, kMaxGgufTensors);
  if (announced != tensors) {
    refuse(first, "split.tensors.count", "gguf.split_tensors",
           fmt::format("{} tensors in all parts", announced), fmt::format("{}", tensors));
  }
}

}  // namespace plumb
