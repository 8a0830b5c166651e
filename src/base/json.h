// JSON values: bounded parsing of foreign text, and writing. The parser is nlohmann's, driven through its SAX
// interface in json.cpp alone, because its own value type has no limits. Objects keep the order of their
// members.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/limits.h"

namespace plumb {

class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  Json() = default;  // null
  Json(bool v) : value_(v) {}
  Json(int v) : value_(int64_t(v)) {}
  Json(int64_t v) : value_(v) {}
  Json(uint32_t v) : value_(int64_t(v)) {}
  Json(uint64_t v) {  // kept as int64_t where it fits
    if (v <= uint64_t(INT64_MAX)) {
      value_ = int64_t(v);
    } else {
      value_ = v;
    }
  }
  Json(float v) : value_(v) {}  // written with the digits that identify it among floats
  Json(double v) : value_(v) {}
  Json(const char* v) : value_(std::string(v)) {}
  Json(std::string_view v) : value_(std::string(v)) {}
  Json(std::string v) : value_(std::move(v)) {}
  Json(Array v) : value_(std::move(v)) {}
  Json(Object v) : value_(std::move(v)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }

  // The value where it has that kind, else nothing or null.
  std::optional<bool> boolean() const { return copy<bool>(); }
  std::optional<int64_t> integer() const { return copy<int64_t>(); }  // not for reals, nor above 2^63 - 1
  std::optional<double> number() const;                               // of any kind of number
  const std::string* text() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }

  /// The member of that name, or null when there is none or this is no object.
  const Json* find(std::string_view key) const;

  /// Adds an element or a member; a null value becomes an array or object first.
  void push(Json element);
  void set(std::string_view key, Json member);
  /// Gives the member of that name another value, or adds it.
  void replace(std::string_view key, Json member);

  using Value =
      std::variant<std::monostate, bool, int64_t, uint64_t, float, double, std::string, Array, Object>;
  const Value& value() const { return value_; }

 private:
  template <class T>
  std::optional<T> copy() const {
    const T* v = std::get_if<T>(&value_);
    return v ? std::optional<T>(*v) : std::nullopt;
  }

  Value value_;
};

struct JsonLimits {
  int depth = kMaxJsonDepth;
  int64_t nodes = kMaxJsonNodes;
  int number_bytes = kMaxJsonNumberBytes;
  int64_t bytes = kMaxJsonBytes;
};

/// Parses strict JSON (RFC 8259) in strict UTF-8. Throws Error "json.syntax", "json.number", "json.depth",
/// "json.nodes", "json.duplicate_key" or "json.too_large" with byte offset and, as key, the JSON pointer;
/// `name` stands for the file.
Json parse_json(std::string_view text, const std::string& name, const JsonLimits& limits = {});

struct JsonStyle {
  int indent = 0;      // spaces per level; 0: everything on one line. Arrays of scalars always take one line
  bool ascii = false;  // escape everything that is not printable ASCII: for terminals
};

/// The value as JSON text. Bytes that are no UTF-8 become U+FFFD; NaN and infinities become null.
std::string dump(const Json& value, const JsonStyle& style = {});

}  // namespace plumb
