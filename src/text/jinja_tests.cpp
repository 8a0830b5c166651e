// Tests of chat templates: what may stand after `is`.
#include <algorithm>

#include "text/jinja_eval.h"
#include "text/jinja_text.h"

namespace plumb::jinja {
namespace {

constexpr std::string_view kTests[] = {
    "defined",     "undefined", "none",    "string",   "number",   "integer",     "float",  "boolean",
    "true",        "false",     "mapping", "sequence", "iterable", "callable",    "odd",    "even",
    "divisibleby", "eq",        "equalto", "==",       "ne",       "!=",          "lt",     "<",
    "lessthan",    "le",        "<=",      "gt",       ">",        "greaterthan", "ge",     ">=",
    "in",          "sameas",    "lower",   "upper",    "filter",   "test",        "escaped"};

constexpr std::pair<std::string_view, const char*> kOrders[] = {
    {"eq", "=="},         {"equalto", "=="}, {"==", "=="}, {"ne", "!="}, {"!=", "!="}, {"lt", "<"},
    {"lessthan", "<"},    {"<", "<"},        {"le", "<="}, {"<=", "<="}, {"gt", ">"},  {">", ">"},
    {"greaterthan", ">"}, {"ge", ">="},      {">=", ">="}, {"in", "in"}};

int64_t remainder(Interpreter& in, const Value& v, const Value& by) {
  const Value r = in.binary("%", v, by);
  return r.exact() ? r.integer() : r.as_real() != 0 ? 2 : 0;
}

bool same(Interpreter& in, const Value& a, const Value& b) {
  if (a.v.index() != b.v.index()) return false;
  if (a.sequence() || b.sequence()) return a.sequence() == b.sequence();
  if (a.dict() || b.dict()) return a.dict() == b.dict();
  return equal(in.heap, a, b);
}

}  // namespace

bool is_test(std::string_view name) {
  return std::find(std::begin(kTests), std::end(kTests), name) != std::end(kTests);
}

bool Interpreter::apply_test(const std::string& name, const Value& v, Arguments& a) {
  heap.step();
  for (const auto& [test, op] : kOrders) {
    if (name == test) return compares(op, v, a.need(0, "other"));
  }
  if (name == "defined") return !v.undefined();
  if (name == "undefined") return v.undefined();
  if (name == "none") return v.none();
  if (name == "string") return v.text() != nullptr;
  if (name == "number") return v.number();
  if (name == "integer") return v.exact() && !v.boolean();
  if (name == "float") return v.real() != nullptr;
  if (name == "boolean") return v.boolean() != nullptr;
  if (name == "true") return v.boolean() && *v.boolean();
  if (name == "false") return v.boolean() && !*v.boolean();
  if (name == "mapping") return v.dict() != nullptr;
  if (name == "iterable") return v.undefined() || v.text() || v.sequence() || v.dict() || v.loop();
  if (name == "sequence") {
    return v.undefined() || v.text() || v.dict() ||
           (v.sequence() && v.sequence()->kind <= SequenceKind::range);
  }
  if (name == "callable") return v.undefined() || v.function() || (v.loop() && v.loop()->statement);
  if (name == "odd") return remainder(*this, v, int64_t{2}) == 1;
  if (name == "even") return remainder(*this, v, int64_t{2}) == 0;
  if (name == "divisibleby") return remainder(*this, v, a.need(0, "num")) == 0;
  if (name == "sameas") return same(*this, v, a.need(0, "other"));
  if (name == "lower") return all_are(to_text(heap, v), CharacterClass::lower);
  if (name == "upper") return all_are(to_text(heap, v), CharacterClass::upper);
  if (name == "filter") return v.text() && is_filter(v.text()->bytes);
  if (name == "test") return v.text() && is_test(v.text()->bytes);
  if (name == "escaped") return v.text() && v.text()->markup;
  throw Fault{"template.unknown", "a known test", name};
}

}  // namespace plumb::jinja
