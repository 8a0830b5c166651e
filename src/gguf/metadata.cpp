// The typed metadata of a GGUF file: keys, scalars, strings and flat arrays, all checked here once, so that
// accessors need no further bounds. Specification: ggml/docs/gguf.md, gguf_metadata_kv_t.
#include <algorithm>
#include <bit>
#include <numeric>

#include "base/limits.h"
#include "gguf/part.h"
#include "gguf/value.h"

namespace plumb {
namespace {

GgufType read_type(Cursor& in, const char* what) {
  const int64_t at = in.at();
  const uint32_t id = in.u32(what);
  const std::optional<GgufType> type = find_gguf_type(id);
  if (!type)
    in.fail("gguf.value_type", at, fmt::format("{} of 0 (uint8) to 12 (float64)", what),
            fmt::format("{}", id));
  return *type;
}

void read_strings(Cursor& in, int64_t count) {
  for (int64_t i = 0; i < count; ++i) in.text(0, kMaxGgufStringBytes, "gguf.string_length", "a string");
}

void check_flags(const Cursor& in, const GgufValue& v) {
  const auto bad = std::find_if(v.bytes.begin(), v.bytes.end(), [](uint8_t b) { return b > 1; });
  if (bad == v.bytes.end()) return;
  in.fail("gguf.boolean", v.offset + (bad - v.bytes.begin()), "a boolean of 0 or 1", fmt::format("{}", *bad));
}

// The header of an array: element type and count, within the limits and the bytes left.
void read_array_header(Cursor& in, GgufValue& v) {
  const int64_t type_at = in.at();
  v.is_array = true;
  v.type = read_type(in, "an element type");
  if (v.type == GgufType::array) {
    in.fail("gguf.nested_array", type_at, "an array of numbers, booleans or strings", "an array of arrays");
  }
  const int64_t count_at = in.at();
  const uint64_t count = in.u64("an array length");
  if (count > kMaxGgufArrayElements) {
    in.fail("gguf.array_length", count_at, fmt::format("at most {} elements", kMaxGgufArrayElements),
            fmt::format("{}", count));
  }
  const int64_t size = element_bytes(v.type);
  in.expect_room(count, uint64_t(size ? size : 8), count_at, "elements");
  v.count = int64_t(count);
}

GgufValue read_entry(Cursor& in, std::span<const uint8_t> bytes) {
  GgufValue v;
  in.in_key({});
  const int64_t entry = in.at();
  v.key = in.text(1, kMaxGgufKeyBytes, "gguf.key_length", "a key");
  in.in_key(v.key);
  if (!is_plain(v.key)) {
    in.fail("gguf.key_text", entry, "a key of printable ASCII characters", '"' + printable(v.key) + '"');
  }
  v.type = read_type(in, "a value type");
  if (v.type == GgufType::array) read_array_header(in, v);
  v.offset = in.at();
  if (v.type == GgufType::string) {
    read_strings(in, v.count);
  } else {
    in.take(uint64_t(v.count) * uint64_t(element_bytes(v.type)), "a value");  // at most 16 Mi x 8
  }
  v.bytes = bytes.subspan(size_t(v.offset), size_t(in.at() - v.offset));
  if (v.type == GgufType::boolean) check_flags(in, v);
  return v;
}

}  // namespace

bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

void read_metadata(Cursor& in, uint64_t count, std::span<const uint8_t> bytes, Part& part) {
  std::vector<int64_t> entries;
  entries.reserve(size_t(count));
  part.values.reserve(size_t(count));
  for (uint64_t i = 0; i < count; ++i) {
    entries.push_back(in.at());
    part.values.push_back(read_entry(in, bytes));
  }
  part.keys.resize(size_t(count));
  std::iota(part.keys.begin(), part.keys.end(), 0u);
  std::sort(part.keys.begin(), part.keys.end(), [&](uint32_t a, uint32_t b) {
    const int order = part.values[a].key.compare(part.values[b].key);
    return order != 0 ? order < 0 : a < b;
  });
  for (size_t i = 1; i < part.keys.size(); ++i) {
    const uint32_t first = part.keys[i - 1], second = part.keys[i];
    if (part.values[first].key != part.values[second].key) continue;
    in.in_key(part.values[first].key);
    in.fail("gguf.key_duplicate", entries[second], "each key once",
            fmt::format("the key again, first at byte {}", entries[first]));
  }
  in.in_key({});
}

int64_t read_alignment(const Cursor& in, const Part& part) {
  const GgufValue* v = part.find("general.alignment");
  if (!v) return kDefaultGgufAlignment;
  const std::string expected =
      fmt::format("an integer, a power of two from {} to {}", kMinGgufAlignment, kMaxGgufAlignment);
  Cursor place = in;
  place.in_key(v->key);
  if (v->is_array || !is_integer(v->type)) {
    place.fail("gguf.alignment", v->offset, expected,
               std::string(v->is_array ? "an array of " : "") + name(v->type));
  }
  const std::optional<int64_t> a = integer_at(*v, 0);
  if (!a || *a < kMinGgufAlignment || *a > kMaxGgufAlignment || !std::has_single_bit(uint64_t(*a))) {
    place.fail("gguf.alignment", v->offset, expected, element_text(*v, 0));
  }
  return *a;
}

const GgufValue* find_value(std::span<const GgufValue> values, const NameIndex& index, std::string_view key) {
  const auto it = std::lower_bound(index.begin(), index.end(), key,
                                   [&](uint32_t i, std::string_view k) { return values[i].key < k; });
  return it != index.end() && values[*it].key == key ? &values[*it] : nullptr;
}

const GgufValue* Part::find(std::string_view key) const { return find_value(values, keys, key); }

}  // namespace plumb
