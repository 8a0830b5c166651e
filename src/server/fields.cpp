#include "server/fields.h"

#include <fmt/format.h>

#include "base/error.h"

namespace plumb::server {

void refuse_field(std::string pointer, std::string expected, std::string found) {
  throw Error({.code = "request.field",
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.key = std::move(pointer)}});
}

void refuse_unsupported(std::string pointer, std::string what) {
  throw Error({.code = "request.unsupported",
               .expected = "a request that does without it",
               .found = std::move(what),
               .where = {.key = std::move(pointer)}});
}

Fields::Fields(const Json& object, std::string pointer) : object_(object), pointer_(std::move(pointer)) {
  if (!object.object()) refuse_field(pointer_, "an object", "another value");
}

void Fields::refuse(std::string_view name, std::string expected, std::string found) const {
  refuse_field(at(name), std::move(expected), std::move(found));
}

const Json* Fields::find(std::string_view name) {
  asked_.emplace(name);
  const Json* v = object_.find(name);
  return v && !v->is_null() ? v : nullptr;
}

const Json& Fields::need(std::string_view name) {
  const Json* v = find(name);
  if (!v) refuse(name, "a value", "none");
  return *v;
}

bool Fields::boolean(std::string_view name, bool otherwise) {
  const Json* v = find(name);
  if (!v) return otherwise;
  const auto b = v->boolean();
  if (!b) refuse(name, "true or false");
  return *b;
}

int64_t Fields::integer(std::string_view name, int64_t otherwise, int64_t min, int64_t max) {
  const Json* v = find(name);
  if (!v) return otherwise;
  const std::string expected = fmt::format("a whole number from {} to {}", min, max);
  const auto n = v->integer();
  if (!n) refuse(name, expected);
  if (*n < min || *n > max) refuse(name, expected, std::to_string(*n));
  return *n;
}

double Fields::number(std::string_view name, double otherwise, double min, double max) {
  const Json* v = find(name);
  if (!v) return otherwise;
  const std::string expected = fmt::format("a number from {} to {}", min, max);
  const auto n = v->number();
  if (!n) refuse(name, expected);
  if (!(*n >= min && *n <= max)) refuse(name, expected, fmt::format("{}", *n));
  return *n;
}

std::optional<std::string> Fields::text(std::string_view name) {
  const Json* v = find(name);
  if (!v) return {};
  if (!v->text()) refuse(name, "a text");
  return *v->text();
}

std::string Fields::need_text(std::string_view name) {
  const auto found = text(name);
  if (!found) refuse(name, "a text", "none");
  return *found;
}

void Fields::only(std::string_view name, const Json& value, const char* expected) {
  const Json* v = find(name);
  if (v && dump(*v) != dump(value)) refuse(name, expected, printable(dump(*v)));
}

void Fields::finish() const {
  for (const auto& [name, value] : *object_.object()) {
    if (!asked_.contains(name))
      refuse_field(at(printable(name)), "only fields that this route knows", "an unknown field");
  }
}

}  // namespace plumb::server
