// The methods of strings, dicts and lists that templates may call, and printf-like formatting.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace plumb::jinja {

bool is_method(const Value& object, std::string_view name);

/// Methods that change the object: the sandbox hides them.
bool is_forbidden(const Value& object, std::string_view name);

/// Python's `format % values`; `all` is the right side itself, for %(name)s. Throws Fault.
std::string format_percent(Heap& heap, std::string_view format, const std::vector<Value>& values,
                           const Value& all);

}  // namespace plumb::jinja
