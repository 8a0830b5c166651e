// What the compiler of schemas is made of: bodies of rules for numbers, strings and patterns, and the merging
// of schemas that must hold together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace plumb::schema {

inline constexpr int64_t kMaxNodes = 20'000;                 // values in a schema
inline constexpr int kMaxDepth = 64;                         // of schemas in schemas, references followed
inline constexpr int64_t kMaxCalls = 20'000;                 // schemas compiled for one schema
inline constexpr size_t kMaxAlternatives = 256;              // of one schema after merging
inline constexpr int64_t kMaxRepetition = 2'000;             // minLength, maxItems and their kin
inline constexpr int64_t kMaxBound = 1'000'000'000'000'000;  // of minimum and maximum

[[noreturn]] void refuse(const char* code, const std::string& pointer, std::string expected,
                         std::string found);

/// Places below a pointer.
std::string below(const std::string& pointer, std::string_view key);

/// Throws unless every keyword of the schema and those within is known and has a value it can have.
void check(const Json& schema, const std::string& pointer);

/// A set of the six kinds and integer, as bits.
enum Kind : uint8_t {
  kNull = 1,
  kBoolean = 2,
  kInteger = 4,
  kReal = 8,
  kString = 16,
  kArray = 32,
  kObject = 64
};
inline constexpr uint8_t kAllKinds = 127, kNumber = kInteger | kReal;
uint8_t kind_of(const Json& value);
uint8_t kinds(const Json& type);  // of the value of "type"

/// Both at once; nothing where no value fulfils both.
std::optional<Json> both(const Json& a, const Json& b, const std::string& pointer);

/// True where it is certain that no value fulfils both; neither has references or unions left.
bool disjoint(const Json& a, const Json& b);

/// Bodies of rules. An integer in [low, high].
std::string integer_body(std::optional<int64_t> low, std::optional<int64_t> high);
std::string number_body(const Json& schema, uint8_t kinds, const std::string& pointer);

/// Between the quotes of a string: what the pattern finds, "" if the format is unknown.
std::string pattern_body(std::string_view pattern, const std::string& pointer);
std::string format_body(std::string_view format);

}  // namespace plumb::schema
