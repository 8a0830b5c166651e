// Two schemas that must hold together become one, keyword by keyword; and whether two can hold together at
// all. Neither has references or unions at its top; those within stay as they are, under allOf.
#include <algorithm>
#include <tuple>

#include "text/json_schema_parts.h"

namespace plumb::schema {
namespace {

bool equal(const Json& a, const Json& b) {
  if (a.number() && b.number()) return *a.number() == *b.number();
  return dump(a) == dump(b);
}

Json all_of(const Json& a, const Json& b) {
  if (a.boolean()) return *a.boolean() ? b : a;
  if (b.boolean()) return *b.boolean() ? a : b;
  Json s;
  s.set("allOf", Json(Json::Array{a, b}));
  return s;
}

bool is_false(const Json& s) { return s.boolean() && !*s.boolean(); }

const char* name(Kind k) {
  switch (k) {
    case kNull:
      return "null";
    case kBoolean:
      return "boolean";
    case kInteger:
      return "integer";
    case kReal:
      return "number";
    case kString:
      return "string";
    case kArray:
      return "array";
    case kObject:
      break;
  }
  return "object";
}

Json type_of(uint8_t set) {
  Json::Array list;
  if ((set & kReal) != 0) set &= uint8_t(~kInteger);
  for (Kind k : {kNull, kBoolean, kInteger, kReal, kString, kArray, kObject}) {
    if ((set & k) != 0) list.push_back(name(k));
  }
  return Json(std::move(list));
}

// The properties of one that the other's additionalProperties bind.
Json bound_properties(const Json* own, const Json* others, const Json* others_additional) {
  Json out = Json(Json::Object());
  if (!own) return out;
  for (const auto& [key, s] : *own->object()) {
    const Json* other = others ? others->find(key) : nullptr;
    out.set(key, other ? all_of(s, *other) : others_additional ? all_of(s, *others_additional) : s);
  }
  return out;
}

void merge_objects(const Json& a, const Json& b, Json& out) {
  const Json *pa = a.find("properties"), *pb = b.find("properties");
  const Json *xa = a.find("additionalProperties"), *xb = b.find("additionalProperties");
  if (pa || pb) {
    Json properties = bound_properties(pa, pb, xb);
    const Json more = bound_properties(pb, pa, xa);
    for (const auto& [key, s] : *more.object()) {
      if (!properties.find(key)) properties.set(key, s);
    }
    out.set("properties", std::move(properties));
  }
  if (xa || xb) out.set("additionalProperties", xa && xb ? all_of(*xa, *xb) : xa ? *xa : *xb);
  Json::Array required;
  for (const Json* list : {a.find("required"), b.find("required")}) {
    for (const Json& name : list ? *list->array() : Json::Array()) {
      if (std::none_of(required.begin(), required.end(),
                       [&](const Json& x) { return *x.text() == *name.text(); }))
        required.push_back(name);
    }
  }
  if (!required.empty()) out.set("required", Json(std::move(required)));
}

// The keyword of both, which differ; nothing where no value fulfils both.
std::optional<Json> one(const std::string& key, const Json& a, const Json& b, const std::string& pointer) {
  const auto larger = [&] { return *a.number() >= *b.number() ? a : b; };
  const auto smaller = [&] { return *a.number() <= *b.number() ? a : b; };
  if (key == "type") {
    const uint8_t common = kinds(a) & kinds(b);
    return common ? std::optional(type_of(common)) : std::nullopt;
  }
  if (key == "enum") {
    Json::Array common;
    for (const Json& x : *a.array()) {
      if (std::any_of(b.array()->begin(), b.array()->end(), [&](const Json& y) { return equal(x, y); }))
        common.push_back(x);
    }
    return common.empty() ? std::nullopt : std::optional(Json(std::move(common)));
  }
  if (key.starts_with("min") || key == "exclusiveMinimum") return larger();
  if (key.starts_with("max") || key == "exclusiveMaximum") return smaller();
  if (key == "items" && !a.array() && !b.array()) return all_of(a, b);
  if (equal(a, b)) return a;
  refuse("schema.unsupported", pointer, "schemas that can be merged: one \"" + key + "\" only",
         "two that differ");
}

Json const_as_enum(const Json& s) {
  const Json* value = s.find("const");
  if (!value) return s;
  Json out = Json(Json::Object());
  for (const auto& [key, v] : *s.object()) {
    if (key != "const" && key != "enum") out.set(key, v);
  }
  Json::Array values = {*value};
  if (const Json* list = s.find("enum")) {
    if (std::none_of(list->array()->begin(), list->array()->end(),
                     [&](const Json& x) { return equal(x, *value); }))
      return Json(false);
  }
  out.set("enum", Json(std::move(values)));
  return out;
}

}  // namespace

std::optional<Json> both(const Json& first, const Json& second, const std::string& pointer) {
  if (first.boolean()) return *first.boolean() ? std::optional(second) : std::nullopt;
  if (second.boolean()) return *second.boolean() ? std::optional(first) : std::nullopt;
  const Json a = const_as_enum(first), b = const_as_enum(second);
  if (is_false(a) || is_false(b)) return std::nullopt;
  Json out = Json(Json::Object());
  for (const Json* s : {&a, &b}) {
    for (const auto& [key, value] : *s->object()) {
      if (key == "properties" || key == "required" || key == "additionalProperties" || out.find(key))
        continue;
      const Json* other = s == &a ? b.find(key) : nullptr;
      std::optional<Json> merged = other ? one(key, value, *other, pointer) : std::optional(value);
      if (!merged) return std::nullopt;
      out.set(key, std::move(*merged));
    }
  }
  for (const char* tuple : {"prefixItems", "additionalItems"}) {
    if (out.find(tuple) && (a.find("items") || b.find("items")) && !(a.find(tuple) && b.find(tuple))) {
      refuse("schema.unsupported", pointer, "schemas that can be merged: no tuple with other items", tuple);
    }
  }
  merge_objects(a, b, out);
  return out;
}

bool disjoint(const Json& a, const Json& b) {
  if (is_false(a) || is_false(b)) return true;
  if (!a.object() || !b.object()) return false;
  const Json x = const_as_enum(a), y = const_as_enum(b);
  if (is_false(x) || is_false(y)) return true;
  for (const char* key : {"$ref", "allOf", "anyOf", "oneOf"}) {
    if (x.find(key) || y.find(key)) return false;
  }
  const auto kinds_of = [](const Json& s) {
    const Json* type = s.find("type");
    uint8_t set = type ? kinds(*type) : kAllKinds;
    if (const Json* list = s.find("enum")) {
      uint8_t values = 0;
      for (const Json& v : *list->array()) values |= kind_of(v);
      set &= values;
    }
    return set;
  };
  const uint8_t common = kinds_of(x) & kinds_of(y);
  if (common == 0) return true;
  const Json *ex = x.find("enum"), *ey = y.find("enum");
  if (ex && ey && !one("enum", *ex, *ey, "")) return true;
  const auto number = [](const Json& s, const char* key) {
    return s.find(key) ? s.find(key)->number() : std::nullopt;
  };
  if ((common & ~kNumber) == 0) {
    const auto apart = [&](const Json& low, const Json& high) {
      const auto max = number(low, "maximum"), min = number(high, "minimum");
      return max && min && *max < *min;
    };
    return apart(x, y) || apart(y, x);
  }
  const Json *px = x.find("properties"), *py = y.find("properties");
  if (common != kObject) return false;
  for (const auto& [s, other, own, others] :
       {std::make_tuple(&x, &y, px, py), std::make_tuple(&y, &x, py, px)}) {
    const Json* required = s->find("required");
    for (const Json& r : required ? *required->array() : Json::Array()) {
      const Json* mine = own ? own->find(*r.text()) : nullptr;
      const Json* theirs = others ? others->find(*r.text()) : nullptr;
      if (mine && theirs && disjoint(*mine, *theirs)) return true;
      const Json* more = other->find("additionalProperties");
      if (!theirs && more && is_false(*more)) return true;
    }
  }
  return false;
}

}  // namespace plumb::schema
