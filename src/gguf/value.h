// Elements of metadata values, decoded from the bytes of the file on demand.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf.h"

namespace plumb {

/// The type with that id in a file, or nothing.
std::optional<GgufType> find_gguf_type(uint32_t id);

/// Bytes of a stored element; 0 for strings and arrays, whose size varies.
int64_t element_bytes(GgufType type);

bool is_integer(GgufType type);
bool is_real(GgufType type);

// Element i of a value, 0 <= i < count. The value must have that type: is_integer, is_real or boolean.
std::optional<int64_t> integer_at(const GgufValue& value, int64_t i);  // nothing: a u64 of 2^63 or more
double real_at(const GgufValue& value, int64_t i);
bool flag_at(const GgufValue& value, int64_t i);

/// The first strings of a value of strings, at most `limit`, as views.
std::vector<std::string_view> strings_of(const GgufValue& value, int64_t limit = INT64_MAX);

/// Element i of any type but string, as text: integers exact, reals with the digits that identify them.
std::string element_text(const GgufValue& value, int64_t i);

}  // namespace plumb
