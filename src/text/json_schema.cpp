// The compiler of schemas: references become rules of their own, so recursion stays recursion; unions become
// alternatives; what must hold together is merged first.
#include "text/json_schema.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/json_schema_compiler.h"
#include "text/json_schema_parts.h"

namespace plumb {

using namespace schema;

namespace {

constexpr const char* kPlain =
    "[^\"\\\\\\x00-\\x1F\\x7F]";  // characters of a string that stand for themselves

}  // namespace

std::string gbnf_literal(std::string_view text) {
  std::string s = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') s += '\\';
    if (uint8_t(c) < 0x20) {
      s += fmt::format("\\x{:02X}", uint8_t(c));
    } else {
      s += c;
    }
  }
  return s + "\"";
}

std::string SchemaRules::define(const std::string& name, std::string body) {
  bytes_ += int64_t(name.size() + body.size() + 6);
  if (bytes_ > kMaxGrammarBytes) {
    refuse("schema.limit", "#", fmt::format("a grammar of at most {} bytes", kMaxGrammarBytes), "more");
  }
  bodies_[name] = std::move(body);
  return name;
}

std::string SchemaRules::rule(std::string body) {
  const auto [it, fresh] = by_body_.try_emplace(std::move(body));
  if (!fresh) return it->second;
  it->second = fmt::format("r{}", next_++);
  return define(it->second, it->first);
}

std::string SchemaRules::space() { return rule("(\" \" | \"\\n\" [ \\t]{0,20})?"); }

std::string SchemaRules::escape() {
  return rule(
      "\"\\\\\" ([\"\\\\/bfnrt] | \"u\" ([0-9A-CE-Fa-ce-f] [0-9A-Fa-f]{3} | [Dd] [0-7] [0-9A-Fa-f]{2}))");
}

std::string SchemaRules::character() { return rule(fmt::format("{} | {}", kPlain, escape())); }

std::string SchemaRules::string() {
  return rule(fmt::format("\"\\\"\" ({} | {})* \"\\\"\"", kPlain, escape()));
}

std::string SchemaRules::any_value() {
  if (bodies_.contains("value")) return "value";
  bodies_["value"] = "";
  const std::string ws = space(), object = any_object();
  return define("value",
                fmt::format("{} | \"[\" {} (value (\",\" {} value)* {})? \"]\" | {} | {} | \"true\" | "
                            "\"false\" | \"null\"",
                            object, ws, ws, ws, string(), number_body(Json(Json::Object()), kNumber, "#")));
}

std::string SchemaRules::any_object() {
  const std::string ws = space(), member = fmt::format("{} {} \":\" {} value", string(), ws, ws);
  const std::string object =
      rule(fmt::format("\"{{\" {} ({} (\",\" {} {})* {})? \"}}\"", ws, member, ws, member, ws));
  any_value();
  return object;
}

std::string SchemaRules::text(const std::string& root_body) const {
  std::string s = "root ::= " + root_body + "\n";
  for (const auto& [name, body] : bodies_) s += name + " ::= " + body + "\n";
  return s;
}

std::string SchemaRules::add(const Json& schema, const std::string& where) {
  return SchemaCompiler(*this, schema, where).compile();
}

std::string json_schema_grammar(const Json& schema) {
  SchemaRules rules;
  const std::string root = rules.add(schema);
  return rules.text(root);
}

std::string json_object_grammar() {
  SchemaRules rules;
  const std::string root = rules.any_object();
  return rules.text(root);
}

// SchemaCompiler

std::string SchemaCompiler::compile() {
  check(root_, where_);
  return value(root_, where_, 0);
}

const Json& SchemaCompiler::resolve(const std::string& reference, const std::string& pointer) const {
  const auto wrong = [&] {
    refuse("schema.reference", below(pointer, "$ref"), "# or #/ and the path of a schema in this one",
           reference);
  };
  if (!reference.starts_with('#')) wrong();
  const Json* at = &root_;
  for (size_t i = 1; i < reference.size();) {
    if (reference[i] != '/') wrong();
    const size_t end = std::min(reference.find('/', i + 1), reference.size());
    std::string key;
    for (size_t j = i + 1; j < end; ++j) {
      const bool escaped = reference[j] == '~' && j + 1 < end;
      key += !escaped ? reference[j] : reference[j + 1] == '1' ? '/' : '~';
      j += escaped ? 1 : 0;
    }
    const bool index =
        at->array() && key.size() < 6 && key.find_first_not_of("0123456789") == std::string::npos;
    const size_t n = index && !key.empty() ? size_t(std::stoul(key)) : SIZE_MAX;
    at = at->array() ? (n < at->array()->size() ? &(*at->array())[n] : nullptr) : at->find(key);
    if (!at) wrong();
    i = end;
  }
  if (!at->object() && !at->boolean()) wrong();
  return *at;
}

// A reference may lead to where no keyword is.
void SchemaCompiler::check_once(const Json& target, const std::string& pointer) {
  if (checked_.insert(&target).second) check(target, pointer);
}

std::string SchemaCompiler::reference(const std::string& target, const std::string& pointer, int depth) {
  if (const auto known = references_.find(target); known != references_.end()) return known->second;
  const Json& schema = resolve(target, pointer);
  check_once(schema, target);
  const std::string name = fmt::format("ref{}", rules_.next_++);
  references_[target] = name;
  return rules_.define(name, value(schema, target, depth + 1));
}

std::string SchemaCompiler::value(const Json& s, const std::string& pointer, int depth) {
  if (++calls_ > kMaxCalls)
    refuse("schema.limit", pointer, fmt::format("at most {} schemas", kMaxCalls), "more");
  if (depth > kMaxDepth)
    refuse("schema.limit", pointer, fmt::format("at most {} nested schemas", kMaxDepth), "more");
  if (s.boolean()) {
    if (*s.boolean()) return rules_.any_value();
    refuse("schema.unsatisfiable", pointer, "a schema that some value fulfils", "false");
  }
  const Json own = plain_part(s);
  const Json* ref = s.find("$ref");
  if (ref && own.object()->empty() && !s.find("allOf") && !s.find("anyOf") && !s.find("oneOf")) {
    return reference(*ref->text(), pointer, depth);
  }
  for (const char* key : {"anyOf", "oneOf"}) {  // alone: each alternative keeps its references
    const Json* list = s.find(key);
    const char* other = key == std::string_view("anyOf") ? "oneOf" : "anyOf";
    if (!list || ref || !own.object()->empty() || s.find("allOf") || s.find(other)) continue;
    if (key == std::string_view("oneOf")) alternatives(s, pointer, depth);  // refuses those that overlap
    std::string body;
    for (size_t i = 0; i < list->array()->size(); ++i) {
      const Json& option = (*list->array())[i];
      if (option.boolean() && !*option.boolean()) continue;
      body += (body.empty() ? "" : " | ") +
              value(option, below(below(pointer, key), std::to_string(i)), depth + 1);
    }
    if (!body.empty()) return rules_.rule(body);
  }
  std::string body;
  for (const Json& a : alternatives(s, pointer, depth))
    body += (body.empty() ? "" : " | ") + flat(a, pointer, depth);
  if (body.empty())
    refuse("schema.unsatisfiable", pointer, "a schema that some value fulfils", "a contradiction");
  return rules_.rule(body);
}

// Without references, unions and annotations.
Json SchemaCompiler::plain_part(const Json& s) {
  Json out = Json(Json::Object());
  for (const auto& [key, v] : *s.object()) {
    constexpr std::string_view left_out[] = {
        "title",       "description", "default", "examples", "deprecated", "readOnly",
        "writeOnly",   "$comment",    "$schema", "$id",      "$defs",      "definitions",
        "uniqueItems", "$ref",        "allOf",   "anyOf",    "oneOf"};
    const bool skip = key.starts_with("x-") ||
                      std::find(std::begin(left_out), std::end(left_out), key) != std::end(left_out);
    if (!skip) out.set(key, v);
  }
  return out;
}

// Schemas without references and unions, of which one must hold.
std::vector<Json> SchemaCompiler::alternatives(const Json& s, const std::string& pointer, int depth) {
  if (++calls_ > kMaxCalls)
    refuse("schema.limit", pointer, fmt::format("at most {} schemas", kMaxCalls), "more");
  if (depth > kMaxDepth)
    refuse("schema.limit", pointer, fmt::format("at most {} nested schemas", kMaxDepth), "more");
  if (s.boolean()) return *s.boolean() ? std::vector<Json>{Json(Json::Object())} : std::vector<Json>{};
  std::vector<Json> all = {plain_part(s)};
  const auto cross = [&](const std::vector<Json>& with) {
    std::vector<Json> merged;
    for (const Json& a : all) {
      for (const Json& b : with) {
        if (std::optional<Json> m = both(a, b, pointer)) merged.push_back(std::move(*m));
      }
    }
    all = std::move(merged);
    if (all.size() > kMaxAlternatives) {
      refuse("schema.limit", pointer, fmt::format("at most {} merged alternatives", kMaxAlternatives),
             "more");
    }
  };
  if (const Json* ref = s.find("$ref")) {
    const Json& target = resolve(*ref->text(), pointer);
    check_once(target, *ref->text());
    cross(alternatives(target, *ref->text(), depth + 1));
  }
  if (const Json* list = s.find("allOf")) {
    for (const Json& member : *list->array()) cross(alternatives(member, below(pointer, "allOf"), depth + 1));
  }
  for (const char* key : {"anyOf", "oneOf"}) {
    const Json* list = s.find(key);
    if (!list) continue;
    std::vector<Json> options;
    std::vector<size_t> member;
    for (const Json& m : *list->array()) {
      for (Json& a : alternatives(m, below(pointer, key), depth + 1)) {
        options.push_back(std::move(a));
        member.push_back(size_t(&m - list->array()->data()));
      }
    }
    if (key == std::string_view("oneOf")) refuse_overlap(options, member, below(pointer, key));
    cross(options);
  }
  return all;
}

void SchemaCompiler::refuse_overlap(const std::vector<Json>& options, const std::vector<size_t>& member,
                                    const std::string& pointer) {
  for (size_t i = 0; i < options.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (member[i] == member[j] || disjoint(options[i], options[j])) continue;
      refuse("schema.unsupported", pointer,
             "schemas of which plainly no two hold at once (anyOf has no such need)",
             fmt::format("{} and {}, which may overlap", member[j], member[i]));
    }
  }
}

}  // namespace plumb
