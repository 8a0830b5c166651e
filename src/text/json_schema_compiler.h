// The inside of SchemaRules::add; see json_schema.cpp and json_schema_values.cpp.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "text/grammar_network.h"
#include "text/json_schema.h"
#include "text/json_schema_parts.h"

namespace plumb {

using grammar::kMaxGrammarBytes;

class SchemaCompiler {
 public:
  SchemaCompiler(SchemaRules& rules, const Json& root, const std::string& where)
      : rules_(rules), root_(root), where_(where) {}

  std::string compile();

 private:
  const Json& resolve(const std::string& reference, const std::string& pointer) const;
  std::string reference(const std::string& target, const std::string& pointer, int depth);
  void check_once(const Json& target, const std::string& pointer);
  static Json plain_part(const Json& s);
  std::vector<Json> alternatives(const Json& s, const std::string& pointer, int depth);
  static void refuse_overlap(const std::vector<Json>& options, const std::vector<size_t>& member,
                             const std::string& pointer);

  // Names of rules: of any schema; of one without references and unions; of its kinds of value.
  std::string value(const Json& s, const std::string& pointer, int depth);
  std::string flat(const Json& s, const std::string& pointer, int depth);
  std::string text_value(const Json& s, const std::string& pointer);
  std::string array(const Json& s, const std::string& pointer, int depth);
  std::string object(const Json& s, const std::string& pointer, int depth);
  std::string other_key(const std::vector<std::string>& keys);

  SchemaRules& rules_;
  const Json& root_;
  std::string where_;
  std::map<std::string, std::string> references_;  // from a reference to its rule
  std::set<const Json*> checked_;
  int64_t calls_ = 0;
};

}  // namespace plumb
