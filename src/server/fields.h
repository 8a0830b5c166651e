// The fields of a request's JSON object: each is asked for by name, with its bounds; what nobody asked for is
// an error that names it. null counts as absent.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "base/json.h"

namespace plumb::server {

constexpr size_t kMaxMessages = 4096;  // of a conversation

class Fields {
 public:
  /// Throws Error "request.field" if it is no object. The value must outlive this.
  explicit Fields(const Json& object, std::string pointer = "");

  const Json* find(std::string_view name);  // or null
  const Json& need(std::string_view name);
  bool boolean(std::string_view name, bool otherwise);
  int64_t integer(std::string_view name, int64_t otherwise, int64_t min, int64_t max);
  double number(std::string_view name, double otherwise, double min, double max);
  std::optional<std::string> text(std::string_view name);
  std::string need_text(std::string_view name);
  /// A field that is known and does nothing here unless it has another value than this.
  void only(std::string_view name, const Json& value, const char* expected);

  /// Throws Error "request.field" for the first field that was not asked for.
  void finish() const;

  std::string at(std::string_view name) const { return pointer_ + "/" + std::string(name); }
  [[noreturn]] void refuse(std::string_view name, std::string expected,
                           std::string found = "another value") const;

 private:
  const Json& object_;
  std::string pointer_;
  std::set<std::string, std::less<>> asked_;
};

/// Throws Error "request.field" for the value at a JSON pointer.
[[noreturn]] void refuse_field(std::string pointer, std::string expected, std::string found);

/// Throws Error "request.unsupported": a field that has a meaning which this server lacks.
[[noreturn]] void refuse_unsupported(std::string pointer, std::string what);

}  // namespace plumb::server
