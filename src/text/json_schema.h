// JSON schemas as grammars: every text of the grammar is JSON that the schema admits (docs/grammars.md says
// what of the schema language is understood; the rest is refused by name). The language is that of
// json-schema.org/draft/2020-12, with draft 7's definitions, items and additionalItems.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace plumb {

/// GBNF whose root is a value that the schema admits. Throws Error "schema.unsupported" (a keyword or a
/// combination that is not understood), "schema.value" (a keyword with a value it cannot have),
/// "schema.reference", "schema.unsatisfiable" or "schema.limit", each with the place as a JSON pointer.
std::string json_schema_grammar(const Json& schema);

/// GBNF whose root is any JSON object.
std::string json_object_grammar();

/// Rules of one grammar for several schemas.
class SchemaRules {
 public:
  /// Adds what the schema needs and returns the name of its rule; `where` comes before JSON pointers in
  /// errors. Throws as json_schema_grammar. The schema must outlive this object.
  std::string add(const Json& schema, const std::string& where = "#");

  /// The name of a rule with this body; equal bodies share one.
  std::string rule(std::string body);

  std::string any_value();
  std::string any_object();
  std::string space();      // optional blanks
  std::string escape();     // of a character in a string
  std::string character();  // of a string: itself or escaped
  std::string string();

  /// A rule of this name and body; the caller's names must be its own.
  std::string define(const std::string& name, std::string body);

  /// All rules, the first of them "root ::= " and this body.
  std::string text(const std::string& root_body) const;

 private:
  friend class SchemaCompiler;

  std::map<std::string, std::string> by_body_;
  std::map<std::string, std::string> bodies_;  // by name
  int64_t bytes_ = 0;
  int next_ = 0;
};

/// A GBNF literal of these bytes, which must be UTF-8.
std::string gbnf_literal(std::string_view text);

}  // namespace plumb
