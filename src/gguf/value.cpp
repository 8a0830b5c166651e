#include "gguf/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace plumb {
namespace {

struct TypeInfo {
  const char* name;
  int bytes;  // of a stored element; 0 where it varies
};

// In the order of GgufType; the names are those of the specification.
constexpr TypeInfo kTypes[] = {
    {"uint8", 1}, {"int8", 1},   {"uint16", 2}, {"int16", 2},  {"uint32", 4}, {"int32", 4},   {"float32", 4},
    {"bool", 1},  {"string", 0}, {"array", 0},  {"uint64", 8}, {"int64", 8},  {"float64", 8},
};
static_assert(std::size(kTypes) == size_t(GgufType::f64) + 1);

template <class T>
T load(const GgufValue& value, int64_t i) {
  PLUMB_CHECK(i >= 0 && i < value.count && value.bytes.size() >= size_t(i + 1) * sizeof(T));
  T v;
  std::memcpy(&v, value.bytes.data() + size_t(i) * sizeof(T), sizeof(T));
  return v;
}

}  // namespace

const char* name(GgufType type) {
  PLUMB_CHECK(size_t(type) < std::size(kTypes));
  return kTypes[size_t(type)].name;
}

std::optional<GgufType> find_gguf_type(uint32_t id) {
  if (id >= std::size(kTypes)) return std::nullopt;
  return GgufType(id);
}

int64_t element_bytes(GgufType type) {
  PLUMB_CHECK(size_t(type) < std::size(kTypes));
  return kTypes[size_t(type)].bytes;
}

bool is_integer(GgufType type) {
  return type == GgufType::u8 || type == GgufType::i8 || type == GgufType::u16 || type == GgufType::i16 ||
         type == GgufType::u32 || type == GgufType::i32 || type == GgufType::u64 || type == GgufType::i64;
}

bool is_real(GgufType type) { return type == GgufType::f32 || type == GgufType::f64; }

std::optional<int64_t> integer_at(const GgufValue& value, int64_t i) {
  switch (value.type) {
    case GgufType::u8:
      return load<uint8_t>(value, i);
    case GgufType::i8:
      return load<int8_t>(value, i);
    case GgufType::u16:
      return load<uint16_t>(value, i);
    case GgufType::i16:
      return load<int16_t>(value, i);
    case GgufType::u32:
      return load<uint32_t>(value, i);
    case GgufType::i32:
      return load<int32_t>(value, i);
    case GgufType::i64:
      return load<int64_t>(value, i);
    case GgufType::u64: {
      const uint64_t v = load<uint64_t>(value, i);
      if (v > uint64_t(INT64_MAX)) return std::nullopt;
      return int64_t(v);
    }
    default:
      PLUMB_CHECK(is_integer(value.type));
      return std::nullopt;
  }
}

double real_at(const GgufValue& value, int64_t i) {
  PLUMB_CHECK(is_real(value.type));
  return value.type == GgufType::f32 ? double(load<float>(value, i)) : load<double>(value, i);
}

bool flag_at(const GgufValue& value, int64_t i) {
  PLUMB_CHECK(value.type == GgufType::boolean);
  return load<uint8_t>(value, i) != 0;
}

std::vector<std::string_view> strings_of(const GgufValue& value, int64_t limit) {
  PLUMB_CHECK(value.type == GgufType::string);
  const int64_t n = std::min(value.count, limit);
  std::vector<std::string_view> out;
  out.reserve(size_t(n));
  size_t at = 0;
  for (int64_t i = 0; i < n; ++i) {  // lengths were checked when the file was read
    uint64_t length = 0;
    PLUMB_CHECK(value.bytes.size() - at >= sizeof length);
    std::memcpy(&length, value.bytes.data() + at, sizeof length);
    at += sizeof length;
    PLUMB_CHECK(value.bytes.size() - at >= length);
    out.emplace_back(reinterpret_cast<const char*>(value.bytes.data()) + at, size_t(length));
    at += size_t(length);
  }
  return out;
}

std::string element_text(const GgufValue& value, int64_t i) {
  if (value.type == GgufType::u64) return fmt::format("{}", load<uint64_t>(value, i));
  if (value.type == GgufType::f32) return fmt::format("{}", load<float>(value, i));
  if (value.type == GgufType::f64) return fmt::format("{}", load<double>(value, i));
  if (value.type == GgufType::boolean) return flag_at(value, i) ? "true" : "false";
  return fmt::format("{}", *integer_at(value, i));
}

}  // namespace plumb
