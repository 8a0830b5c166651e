// Typed access to metadata. Each accessor checks type, shape and range, and says where in the file a wrong
// value stands.
#include <fmt/format.h>

#include <cmath>

#include "gguf/state.h"
#include "gguf/value.h"

namespace plumb {
namespace {

std::string type_text(const GgufValue& v) {
  return v.is_array ? fmt::format("an array of {} {}", v.count, name(v.type)) : name(v.type);
}

[[noreturn]] void refuse_at(const Gguf& g, const GgufValue& v, const char* code, int64_t offset,
                            std::string expected, std::string found) {
  throw Error({.code = code,
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.file = g.path(), .offset = offset, .key = std::string(v.key)}});
}

std::string integer_range(int64_t min, int64_t max) {
  if (min == INT64_MIN && max == INT64_MAX) return "";
  if (max == INT64_MAX) return fmt::format(" of at least {}", min);
  if (min == INT64_MIN) return fmt::format(" of at most {}", max);
  return fmt::format(" from {} to {}", min, max);
}

int64_t checked_integer(const Gguf& g, const GgufValue& v, int64_t i, int64_t min, int64_t max) {
  const std::optional<int64_t> n = integer_at(v, i);
  if (!n || *n < min || *n > max) {
    refuse_at(g, v, "gguf.key_range", v.offset + i * element_bytes(v.type),
              "an integer" + integer_range(min, max), element_text(v, i));
  }
  return *n;
}

// The value with that key and shape, or null when there is none; throws when it is of another type.
const GgufValue* typed(const Gguf& g, std::string_view key, bool array, bool (*fits)(GgufType),
                       const char* what) {
  const GgufValue* v = g.find(key);
  if (!v) return nullptr;
  if (v->is_array != array || !fits(v->type))
    refuse_at(g, *v, "gguf.key_type", v->offset, what, type_text(*v));
  return v;
}

bool is_flag(GgufType t) { return t == GgufType::boolean; }
bool is_string(GgufType t) { return t == GgufType::string; }

}  // namespace

std::optional<int64_t> Gguf::integer(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue* v = typed(*this, key, false, is_integer, "an integer");
  if (!v) return std::nullopt;
  return checked_integer(*this, *v, 0, min, max);
}

std::optional<double> Gguf::real(std::string_view key, double min, double max) const {
  const GgufValue* v = typed(*this, key, false, is_real, "float32 or float64");
  if (!v) return std::nullopt;
  const double x = real_at(*v, 0);
  if (!(x >= min && x <= max)) {  // also when it is not a number
    refuse_at(*this, *v, "gguf.key_range", v->offset, fmt::format("a number from {} to {}", min, max),
              element_text(*v, 0));
  }
  return x;
}

std::optional<bool> Gguf::flag(std::string_view key) const {
  const GgufValue* v = typed(*this, key, false, is_flag, "bool");
  if (!v) return std::nullopt;
  return flag_at(*v, 0);
}

std::optional<std::string_view> Gguf::text(std::string_view key) const {
  const GgufValue* v = typed(*this, key, false, is_string, "string");
  if (!v) return std::nullopt;
  return strings_of(*v).front();
}

std::optional<std::vector<std::string_view>> Gguf::texts(std::string_view key) const {
  const GgufValue* v = typed(*this, key, true, is_string, "an array of strings");
  if (!v) return std::nullopt;
  return strings_of(*v);
}

std::optional<std::vector<int64_t>> Gguf::integers(std::string_view key, int64_t min, int64_t max) const {
  const GgufValue* v = typed(*this, key, true, is_integer, "an array of integers");
  if (!v) return std::nullopt;
  std::vector<int64_t> out(size_t(v->count));
  for (int64_t i = 0; i < v->count; ++i) out[size_t(i)] = checked_integer(*this, *v, i, min, max);
  return out;
}

std::optional<std::vector<float>> Gguf::reals(std::string_view key) const {
  const GgufValue* v = typed(*this, key, true, is_real, "an array of float32 or float64");
  if (!v) return std::nullopt;
  std::vector<float> out(size_t(v->count));
  for (int64_t i = 0; i < v->count; ++i) out[size_t(i)] = float(real_at(*v, i));
  return out;
}

std::optional<std::vector<bool>> Gguf::flags(std::string_view key) const {
  const GgufValue* v = typed(*this, key, true, is_flag, "an array of bool");
  if (!v) return std::nullopt;
  std::vector<bool> out(size_t(v->count));
  for (int64_t i = 0; i < v->count; ++i) out[size_t(i)] = flag_at(*v, i);
  return out;
}

void Gguf::missing(std::string_view key, std::string_view what) const {
  throw Error({.code = "gguf.key_missing",
               .expected = std::string(what),
               .found = "no such key up to the end of the metadata",
               .where = {.file = path(), .offset = state_->metadata_end, .key = std::string(key)}});
}

void Gguf::refuse(std::string_view key, std::string code, std::string expected, std::string found) const {
  const GgufValue* v = find(key);
  throw Error(
      {.code = std::move(code),
       .expected = std::move(expected),
       .found = std::move(found),
       .where = {.file = path(), .offset = v ? v->offset : state_->metadata_end, .key = std::string(key)}});
}

}  // namespace plumb
