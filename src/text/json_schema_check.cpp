// Every keyword of a schema, before anything is made of it: known, and with a value that it can have.
#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/json_schema_parts.h"

namespace plumb::schema {

void refuse(const char* code, const std::string& pointer, std::string expected, std::string found) {
  throw Error({.code = code,
               .expected = std::move(expected),
               .found = printable(found, 200),
               .where = {.key = "JSON schema, " + printable(pointer, 200)}});
}

std::string below(const std::string& pointer, std::string_view key) {
  std::string s = pointer + "/";
  for (char c : key) s += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return s;
}

namespace {

enum class Value {
  annotation,
  schema,
  schemas,
  named_schemas,
  items,
  text,
  texts,
  count,
  number,
  flag,
  kind,
  any,
  list
};

struct Keyword {
  const char* name;
  Value value;
};

constexpr Keyword kKeywords[] = {
    {"title", Value::annotation},
    {"description", Value::annotation},
    {"default", Value::annotation},
    {"examples", Value::annotation},
    {"deprecated", Value::annotation},
    {"readOnly", Value::annotation},
    {"writeOnly", Value::annotation},
    {"$comment", Value::annotation},
    {"$schema", Value::annotation},
    {"$id", Value::annotation},
    {"$defs", Value::named_schemas},
    {"definitions", Value::named_schemas},
    {"$ref", Value::text},
    {"type", Value::kind},
    {"enum", Value::list},
    {"const", Value::any},
    {"allOf", Value::schemas},
    {"anyOf", Value::schemas},
    {"oneOf", Value::schemas},
    {"properties", Value::named_schemas},
    {"required", Value::texts},
    {"additionalProperties", Value::schema},
    {"items", Value::items},
    {"prefixItems", Value::schemas},
    {"additionalItems", Value::schema},
    {"minItems", Value::count},
    {"maxItems", Value::count},
    {"uniqueItems", Value::flag},
    {"minLength", Value::count},
    {"maxLength", Value::count},
    {"pattern", Value::text},
    {"format", Value::text},
    {"minimum", Value::number},
    {"maximum", Value::number},
    {"exclusiveMinimum", Value::number},
    {"exclusiveMaximum", Value::number},
    {"multipleOf", Value::number},
};

class Check {
 public:
  void schema(const Json& s, const std::string& pointer, int depth) {
    if (++nodes_ > kMaxNodes)
      refuse("schema.limit", pointer, fmt::format("at most {} schemas", kMaxNodes), "more");
    if (depth > kMaxDepth)
      refuse("schema.limit", pointer, fmt::format("at most {} nested schemas", kMaxDepth), "more");
    if (s.boolean()) return;
    if (!s.object()) refuse("schema.value", pointer, "a schema: an object or a boolean", dump(s));
    for (const auto& [key, value] : *s.object()) {
      if (key.starts_with("x-")) continue;
      const auto* k = std::find_if(std::begin(kKeywords), std::end(kKeywords),
                                   [&name = key](const Keyword& x) { return name == x.name; });
      if (k == std::end(kKeywords)) {
        refuse("schema.unsupported", below(pointer, key), "a keyword that Plumb can enforce",
               "\"" + key + "\"");
      }
      keyword(k->value, value, below(pointer, key), depth);
    }
  }

 private:
  static void need(bool right, const std::string& pointer, const char* expected, const Json& found) {
    if (!right) refuse("schema.value", pointer, expected, dump(found));
  }

  void each(const Json& list, const std::string& pointer, int depth) {
    need(list.array() && !list.array()->empty(), pointer, "an array of schemas", list);
    for (size_t i = 0; i < list.array()->size(); ++i) {
      schema((*list.array())[i], below(pointer, std::to_string(i)), depth + 1);
    }
  }

  void keyword(Value kind, const Json& v, const std::string& pointer, int depth) {
    switch (kind) {
      case Value::annotation:
      case Value::any:
        return;
      case Value::schema:
        return schema(v, pointer, depth + 1);
      case Value::items:
        if (v.array()) return each(v, pointer, depth);
        return schema(v, pointer, depth + 1);
      case Value::schemas:
        return each(v, pointer, depth);
      case Value::named_schemas:
        need(v.object() != nullptr, pointer, "an object of schemas", v);
        for (const auto& [name, s] : *v.object()) schema(s, below(pointer, name), depth + 1);
        return;
      case Value::text:
        return need(v.text() != nullptr, pointer, "a string", v);
      case Value::texts:
        need(v.array() &&
                 std::all_of(v.array()->begin(), v.array()->end(), [](const Json& x) { return x.text(); }),
             pointer, "an array of strings", v);
        return;
      case Value::count:
        return need(v.integer() && *v.integer() >= 0, pointer, "an integer from 0", v);
      case Value::number:
        need(v.number().has_value(), pointer, "a number", v);
        return;
      case Value::flag:
        need(v.boolean().has_value(), pointer, "a boolean", v);
        if (*v.boolean())
          refuse("schema.unsupported", pointer, "a keyword that Plumb can enforce", "\"uniqueItems\"");
        return;
      case Value::kind:
        return need(kinds(v) != 0, pointer,
                    "null, boolean, integer, number, string, array or object, or some of them", v);
      case Value::list:
        need(v.array() && !v.array()->empty(), pointer, "an array of values", v);
    }
  }

  int64_t nodes_ = 0;
};

}  // namespace

void check(const Json& schema, const std::string& pointer) { Check().schema(schema, pointer, 0); }

uint8_t kind_of(const Json& v) {
  if (v.is_null()) return kNull;
  if (v.boolean()) return kBoolean;
  if (v.text()) return kString;
  if (v.array()) return kArray;
  if (v.object()) return kObject;
  const double x = *v.number();
  return x == double(int64_t(std::clamp(x, -9e18, 9e18))) ? kInteger : kReal;
}

uint8_t kinds(const Json& type) {
  if (const Json::Array* list = type.array()) {
    uint8_t all = 0;
    for (const Json& t : *list) {
      const uint8_t k = t.text() ? kinds(t) : 0;
      if (k == 0) return 0;
      all |= k;
    }
    return all;
  }
  if (!type.text()) return 0;
  const std::string& t = *type.text();
  return t == "null"      ? kNull
         : t == "boolean" ? kBoolean
         : t == "integer" ? kInteger
         : t == "number"  ? kNumber
         : t == "string"  ? kString
         : t == "array"   ? kArray
         : t == "object"  ? kObject
                          : 0;
}

}  // namespace plumb::schema
