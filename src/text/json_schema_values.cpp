// Rules for the values of one schema without references and unions: constants, strings, arrays, objects.
#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"
#include "text/json_schema_compiler.h"

namespace plumb {

using namespace schema;

namespace {

// The kinds that keywords speak of; a schema without "type" is read as one of those.
uint8_t kinds_asked(const Json& s) {
  if (const Json* type = s.find("type")) return kinds(*type);
  uint8_t set = 0;
  for (const auto& [key, v] : *s.object()) {
    if (key == "properties" || key == "required" || key == "additionalProperties") set |= kObject;
    if (key == "items" || key == "prefixItems" || key == "additionalItems" || key == "minItems" ||
        key == "maxItems")
      set |= kArray;
    if (key == "minLength" || key == "maxLength" || key == "pattern" || key == "format") set |= kString;
    if (key.ends_with("imum") || key == "multipleOf") set |= kNumber;
  }
  return set;
}

int64_t count_of(const Json& s, const char* key, int64_t otherwise, const std::string& pointer) {
  const Json* v = s.find(key);
  if (!v) return otherwise;
  if (*v->integer() > kMaxRepetition) {
    refuse("schema.limit", below(pointer, key), fmt::format("at most {}", kMaxRepetition), dump(*v));
  }
  return *v->integer();
}

bool is_false(const Json* s) { return s && s->boolean() && !*s->boolean(); }

std::string times(const std::string& part, int64_t least, int64_t most) {
  if (most == 0) return "";
  return most < 0 ? fmt::format("{}{{{},}}", part, least) : fmt::format("{}{{{},{}}}", part, least, most);
}

}  // namespace

std::string SchemaCompiler::flat(const Json& s, const std::string& pointer, int depth) {
  const uint8_t set = kinds_asked(s);
  std::string body;
  const auto alternative = [&](const std::string& text) { body += (body.empty() ? "" : " | ") + text; };
  const Json *list = s.find("enum"), *value = s.find("const");
  if (list || value) {
    for (const auto& [key, v] : *s.object()) {
      if (key == "enum" || key == "const" || key == "type") continue;
      refuse("schema.unsupported", below(pointer, key),
             "\"enum\" or \"const\" with no keyword but \"type\" beside it", "\"" + key + "\"");
    }
    for (const Json& v : list ? *list->array() : Json::Array{*value}) {
      const bool chosen = !value || dump(v) == dump(*value);
      if (chosen && (set == 0 || (kind_of(v) & set) != 0)) alternative(gbnf_literal(dump(v)));
    }
    if (body.empty()) refuse("schema.unsatisfiable", pointer, "a value of the type asked for", dump(s));
    return rules_.rule(body);
  }
  if (set == 0) return rules_.any_value();
  if ((set & kNull) != 0) alternative("\"null\"");
  if ((set & kBoolean) != 0) alternative("\"true\" | \"false\"");
  if ((set & kNumber) != 0) alternative(rules_.rule(number_body(s, set, pointer)));
  if ((set & kString) != 0) alternative(text_value(s, pointer));
  if ((set & kArray) != 0) alternative(array(s, pointer, depth));
  if ((set & kObject) != 0) alternative(object(s, pointer, depth));
  return rules_.rule(body);
}

std::string SchemaCompiler::text_value(const Json& s, const std::string& pointer) {
  const Json *pattern = s.find("pattern"), *format = s.find("format");
  const bool lengths = s.find("minLength") || s.find("maxLength");
  if ((pattern ? 1 : 0) + (format ? 1 : 0) + (lengths ? 1 : 0) > 1) {
    refuse("schema.unsupported", pointer, "one of pattern, format and lengths", "several of them");
  }
  if (pattern) {
    return rules_.rule(
        fmt::format("\"\\\"\" ({}) \"\\\"\"", pattern_body(*pattern->text(), below(pointer, "pattern"))));
  }
  if (format) {
    const std::string body = format_body(*format->text());
    if (body.empty()) {
      refuse("schema.unsupported", below(pointer, "format"),
             "one of date, time, date-time, uuid, ipv4, hostname, email, uri", *format->text());
    }
    return rules_.rule(fmt::format("\"\\\"\" {} \"\\\"\"", body));
  }
  if (!lengths) return rules_.string();
  const int64_t least = count_of(s, "minLength", 0, pointer), most = count_of(s, "maxLength", -1, pointer);
  if (most >= 0 && most < least)
    refuse("schema.unsatisfiable", pointer, "minLength not above maxLength", dump(s));
  return rules_.rule(fmt::format("\"\\\"\" {} \"\\\"\"", times(rules_.character(), least, most)));
}

// Of a tuple its places in turn; behind them the items.
std::string SchemaCompiler::array(const Json& s, const std::string& pointer, int depth) {
  const Json *items = s.find("items"), *tuple = s.find("prefixItems");
  const char* items_key = "items";
  if (items && items->array()) {  // as draft 7 says it
    tuple = items;
    items_key = "additionalItems";
    items = s.find(items_key);
  }
  const int64_t least = count_of(s, "minItems", 0, pointer);
  int64_t most = count_of(s, "maxItems", -1, pointer);
  const int64_t places = tuple ? int64_t(tuple->array()->size()) : 0;
  const bool closed = is_false(items) || (tuple && !items && least <= places);
  if (closed && (most < 0 || most > places)) most = places;
  if (most >= 0 && most < least) refuse("schema.unsatisfiable", pointer, "room for minItems", dump(s));
  const std::string ws = rules_.space();
  std::string rest;  // from the place reached on, nothing of it written
  if (most < 0 || most > places) {
    const std::string item = items ? value(*items, below(pointer, items_key), depth + 1) : rules_.any_value();
    const int64_t more = most < 0 ? -1 : most - places, need = std::max<int64_t>(least - places, 0);
    const std::string next = fmt::format("(\",\" {} {})", ws, item);
    if (places > 0) {
      rest = times(next, need, more);
    } else {
      rest =
          fmt::format("{} {}", item, times(next, std::max<int64_t>(need - 1, 0), more < 0 ? -1 : more - 1));
      if (least == 0) rest = "(" + rest + ")?";
    }
  }
  const int64_t last = most >= 0 && most < places ? most : places;
  for (int64_t i = last - 1; i >= 0; --i) {
    const std::string place =
        value((*tuple->array())[size_t(i)],
              below(below(pointer, tuple == s.find("items") ? "items" : "prefixItems"), std::to_string(i)),
              depth + 1);
    rest = fmt::format("{} {} {}", i > 0 ? "\",\" " + ws : "", place, rest);
    rest = i >= least ? fmt::format("({})?", rules_.rule(rest)) : rules_.rule(rest);
  }
  return rules_.rule(fmt::format("\"[\" {} {} {} \"]\"", ws, rest, ws));
}

// Members in the order of the schema, then others; those not required may be left out. Each has two rules:
// with a comma before it, and as the first.
std::string SchemaCompiler::object(const Json& s, const std::string& pointer, int depth) {
  const Json *properties = s.find("properties"), *others = s.find("additionalProperties"),
             *required = s.find("required");
  struct Member {
    std::string key, place;
    const Json* schema;
    bool needed;
  };
  std::vector<Member> members;
  std::vector<std::string> keys;
  const Json anything(true);
  const Json::Object none;
  for (const auto& [key, v] : properties ? *properties->object() : none) {
    members.push_back({key, below(below(pointer, "properties"), key), &v, false});
  }
  for (const Json& r : required ? *required->array() : Json::Array()) {
    const auto it =
        std::find_if(members.begin(), members.end(), [&](const Member& m) { return m.key == *r.text(); });
    if (it != members.end()) {
      it->needed = true;
    } else {
      members.push_back(
          {*r.text(), below(pointer, "additionalProperties"), others ? others : &anything, true});
    }
  }
  for (const Member& m : members) keys.push_back(m.key);
  const std::string ws = rules_.space();
  std::string first, later;  // from a member on: as the first, and behind another
  if (others && !is_false(others)) {
    const std::string member =
        rules_.rule(fmt::format("{} {} \":\" {} {}", other_key(keys), ws, ws,
                                value(*others, below(pointer, "additionalProperties"), depth + 1)));
    later = rules_.rule(fmt::format("(\",\" {} {})*", ws, member));
    first = fmt::format("({} {})?", member, later);
  }
  for (size_t i = members.size(); i-- > 0;) {
    const Member& m = members[i];
    if (is_false(m.schema) && !m.needed) continue;
    const std::string member = fmt::format("{} {} \":\" {} {}", gbnf_literal(dump(Json(m.key))), ws, ws,
                                           value(*m.schema, m.place, depth + 1));
    const std::string next = rules_.rule(fmt::format("{} {}", member, later));
    first = m.needed ? next : fmt::format("({} | {})", next, first.empty() ? "\"\"" : rules_.rule(first));
    later = m.needed ? fmt::format("\",\" {} {}", ws, next)
                     : fmt::format("(\",\" {} {} | {})", ws, next, later.empty() ? "\"\"" : later);
    later = rules_.rule(later);
  }
  return rules_.rule(fmt::format("\"{{\" {} {} {} \"}}\"", ws, first, ws));
}

// A key that is none of these: a tree of their characters, left by any other character. It has no escapes,
// behind which a name could hide.
std::string SchemaCompiler::other_key(const std::vector<std::string>& keys) {
  constexpr size_t kMaxKeyBytes = 1'000;
  std::vector<std::string> sorted = keys;
  for (const std::string& key : sorted) {
    if (key.size() <= kMaxKeyBytes) continue;
    refuse("schema.limit", where_, fmt::format("names of at most {} bytes beside others", kMaxKeyBytes), key);
  }
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  constexpr const char* plain = "\"\\\\\\x00-\\x1F\\x7F";
  const std::string tail = rules_.rule(fmt::format("[^{}]*", plain));
  // Of the keys [begin, end), which share their first `at` bytes.
  const auto node = [&](auto& self, size_t begin, size_t end, size_t at) -> std::string {
    std::string children, used;
    const bool is_key = begin < end && sorted[begin].size() == at;
    for (size_t i = begin + (is_key ? 1 : 0); i < end;) {
      const Utf8Step step = utf8_step(sorted[i], at);
      const std::string character = sorted[i].substr(at, size_t(step.length));
      size_t next = i;
      while (next < end && sorted[next].compare(at, character.size(), character) == 0) ++next;
      if (step.code >= 0x20 && step.code != '"' && step.code != '\\' && step.code != 0x7F) {
        used += fmt::format("\\U{:08X}", step.code);
        children += " | " + gbnf_literal(character) + " " + self(self, i, next, at + character.size());
      }
      i = next;
    }
    return rules_.rule(fmt::format("{} [^{}{}] {}{}", is_key ? "" : "\"\" |", plain, used, tail, children));
  };
  return rules_.rule("\"\\\"\" " + node(node, 0, sorted.size(), 0) + " \"\\\"\"");
}

}  // namespace plumb
