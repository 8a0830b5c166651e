// Filters of chat templates: those of Jinja2 that real templates use, and transformers' own tojson.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_text.h"

namespace plumb::jinja {

const Value* Arguments::get(size_t i, std::string_view name) const {
  if (i < positional.size()) return &positional[i];
  for (const auto& [n, v] : named) {
    if (!name.empty() && n == name) return &v;
  }
  return nullptr;
}

const Value& Arguments::need(size_t i, std::string_view name) const {
  const Value* v = get(i, name);
  if (!v) throw Fault{"template.type", fmt::format("the argument '{}'", name), "none"};
  return *v;
}

int64_t Arguments::integer(size_t i, std::string_view name, int64_t absent) const {
  const Value* v = get(i, name);
  if (!v || v->none()) return absent;
  if (!v->exact()) throw Fault{"template.type", "an integer", type_name(*v)};
  return v->integer();
}

bool Arguments::flag(size_t i, std::string_view name, bool absent) const {
  const Value* v = get(i, name);
  return v ? truth(*v) : absent;
}

const std::string* Arguments::text(size_t i, std::string_view name) const {
  const Value* v = get(i, name);
  if (!v || v->none()) return nullptr;
  if (!v->text()) throw Fault{"template.type", "a string", type_name(*v)};
  return &v->text()->bytes;
}

void Arguments::at_most(size_t n) const {
  if (positional.size() + named.size() > n) {
    throw Fault{"template.type", fmt::format("at most {} arguments", n),
                fmt::format("{}", positional.size() + named.size())};
  }
}

namespace {

using Filter = Value (*)(Interpreter&, const Value&, Arguments&);

bool markup(const Value& v) { return v.text() && v.text()->markup; }

// "a.b.0" of a value, as the arguments `attribute` mean it.
Value dig(Interpreter& in, const Value& v, const Value& path) {
  if (!path.text()) return in.item(v, path);
  Value at = v;
  const std::string dot = ".";
  for (const std::string& part : split(path.text()->bytes, &dot, -1)) {
    const bool number = all_are(part, CharacterClass::digit) && part.size() < 10;
    at = in.item(at, number ? Value(int64_t(std::atoi(part.c_str()))) : in.text(part));
  }
  return at;
}

Value folded(Interpreter& in, const Value& v, bool sensitive) {
  return v.text() && !sensitive ? in.text(lower(v.text()->bytes)) : v;
}

Value filter_tojson(Interpreter& in, const Value& v, Arguments& a) {
  JsonFormat f;
  f.ascii = a.flag(0, "ensure_ascii", false);
  const Value* indent = a.get(1, "indent");
  if (indent && indent->text()) f.indent_text = indent->text()->bytes;
  if (indent && indent->exact()) f.indent = int(std::clamp<int64_t>(indent->integer(), 0, INT32_MAX / 256));
  if (indent && !indent->none()) f.comma = ",";
  if (const Value* separators = a.get(2, "separators"); separators && !separators->none()) {
    const std::vector<Value> pair = elements(in.heap, *separators);
    if (pair.size() != 2 || !pair[0].text() || !pair[1].text())
      throw Fault{"template.type", "two separators", "others"};
    f.comma = pair[0].text()->bytes;
    f.colon = pair[1].text()->bytes;
  }
  f.sorted = a.flag(3, "sort_keys", false);
  return in.text(to_json(in.heap, v, f));
}

Value filter_default(Interpreter& in, const Value& v, Arguments& a) {
  const Value* other = a.get(0, "default_value");
  if (v.undefined() || (a.flag(1, "boolean", false) && !truth(v))) return other ? *other : in.text("");
  return v;
}

Value filter_trim(Interpreter& in, const Value& v, Arguments& a) {
  const std::string s = to_text(in.heap, v);
  const std::string* set = a.text(0, "chars");
  return in.text(std::string(strip(s, set ? *set : "", true, true)), markup(v));
}

Value filter_join(Interpreter& in, const Value& v, Arguments& a) {
  const Value* mark = a.get(0, "d");
  const Value* path = a.get(1, "attribute");
  const std::string between = mark ? to_text(in.heap, *mark) : "";
  std::string out;
  bool first = true;
  for (const Value& x : elements(in.heap, v)) {
    if (!std::exchange(first, false)) out += between;
    out += to_text(in.heap, path ? dig(in, x, *path) : x);
    in.heap.room_for(int64_t(out.size()));
  }
  return in.text(std::move(out));
}

Value filter_replace(Interpreter& in, const Value& v, Arguments& a) {
  const std::string s = to_text(in.heap, v), from = to_text(in.heap, a.need(0, "old")),
                    to = to_text(in.heap, a.need(1, "new"));
  const int64_t times = from.empty() ? int64_t(s.size()) + 1 : int64_t(s.size() / from.size());
  if (int64_t(s.size()) + times * int64_t(to.size()) > (1 << 20)) {  // count exactly only where it matters
    int64_t n = from.empty() ? times : 0;
    for (size_t i = 0; !from.empty() && (i = s.find(from, i)) != s.npos; i += from.size()) ++n;
    in.heap.room_for(int64_t(s.size()) + n * int64_t(to.size()));
  }
  in.heap.step(1 + int64_t(s.size()) / 64);
  return in.text(replace(s, from, to, a.integer(2, "count", -1)), markup(v));
}

Value filter_indent(Interpreter& in, const Value& v, Arguments& a) {
  const Value* width = a.get(0, "width");
  const bool first = a.flag(1, "first", false), blank = a.flag(2, "blank", false);
  if (!width || !width->text()) in.heap.room_for(a.integer(0, "width", 4));
  const std::string pad = width && width->text()
                              ? width->text()->bytes
                              : std::string(size_t(std::max<int64_t>(0, a.integer(0, "width", 4))), ' ');
  std::string s = to_text(in.heap, v) + "\n", out;
  bool begin = true;
  for (const std::string& line : splitlines(s, false)) {
    if (!begin) out += '\n';
    if ((begin && first) || (!begin && (blank || !line.empty()))) out += pad;
    out += line;
    in.heap.room_for(int64_t(out.size()));
    begin = false;
  }
  return in.text(std::move(out), markup(v));
}

Value filter_items(Interpreter& in, const Value& v, Arguments&) {
  if (v.undefined()) return make_sequence(in.heap, {}, SequenceKind::iterator);
  if (!v.dict()) throw Fault{"template.type", "a mapping", type_name(v)};
  return make_sequence(in.heap, in.call_method(v, "items", {}).sequence()->items, SequenceKind::iterator);
}

std::vector<Value> sorted(Interpreter& in, std::vector<Value> items, bool sensitive, bool reverse,
                          const Value* path) {
  std::vector<std::pair<Value, Value>> keyed;
  std::vector<std::string> paths;
  const std::string comma = ",";
  if (path && path->text()) paths = split(path->text()->bytes, &comma, -1);
  for (Value& v : items) {
    std::vector<Value> key;
    for (const std::string& p : paths) key.push_back(folded(in, dig(in, v, in.text(p)), sensitive));
    if (paths.empty()) key.push_back(folded(in, path ? dig(in, v, *path) : v, sensitive));
    keyed.emplace_back(make_sequence(in.heap, std::move(key)), std::move(v));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& x, const auto& y) {
    const int c = compare(in.heap, x.first, y.first);
    return reverse ? c > 0 : c < 0;
  });
  std::vector<Value> out;
  for (auto& [key, v] : keyed) out.push_back(std::move(v));
  return out;
}

Value filter_dictsort(Interpreter& in, const Value& v, Arguments& a) {
  if (!v.dict()) throw Fault{"template.type", "a mapping", type_name(v)};
  const std::string* by = a.text(1, "by");
  const Value index = int64_t{by && *by == "value"};
  return make_sequence(in.heap,
                       sorted(in, in.call_method(v, "items", {}).sequence()->items,
                              a.flag(0, "case_sensitive", false), a.flag(2, "reverse", false), &index));
}

Value filter_sort(Interpreter& in, const Value& v, Arguments& a) {
  const Value* path = a.get(2, "attribute");
  return make_sequence(in.heap, sorted(in, elements(in.heap, v), a.flag(1, "case_sensitive", false),
                                       a.flag(0, "reverse", false), path && path->none() ? nullptr : path));
}

Value filter_unique(Interpreter& in, const Value& v, Arguments& a) {
  const Value* path = a.get(1, "attribute");
  std::vector<Value> keys, out;
  for (const Value& x : elements(in.heap, v)) {
    const Value key = folded(in, path ? dig(in, x, *path) : x, a.flag(0, "case_sensitive", false));
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& k) { return equal(in.heap, k, key); }))
      continue;
    keys.push_back(key);
    out.push_back(x);
  }
  return make_sequence(in.heap, std::move(out), SequenceKind::iterator);
}

Value filter_map(Interpreter& in, const Value& v, Arguments& a) {
  std::vector<Value> out;
  const Value* path = a.positional.empty() ? a.get(0, "attribute") : nullptr;
  const Value* absent = a.get(SIZE_MAX, "default");
  const std::string* name = path ? nullptr : a.text(0, {});
  if (!path && !name) throw Fault{"template.type", "a filter or an attribute", "none"};
  for (const Value& x : truth(v) ? elements(in.heap, v) : std::vector<Value>()) {
    if (path) {
      Value got = dig(in, x, *path);
      out.push_back(got.undefined() && absent ? *absent : std::move(got));
    } else {
      Arguments rest{{a.positional.begin() + 1, a.positional.end()}, a.named};
      out.push_back(in.apply_filter(*name, x, rest));
    }
  }
  return make_sequence(in.heap, std::move(out), SequenceKind::iterator);
}

// select, reject, selectattr and rejectattr.
Value choose(Interpreter& in, const Value& v, Arguments& a, bool by_attribute, bool wanted) {
  const size_t first = by_attribute ? 1 : 0;
  if (by_attribute) a.need(0, {});
  const std::string* test = a.text(first, {});
  std::vector<Value> out;
  for (const Value& x : truth(v) ? elements(in.heap, v) : std::vector<Value>()) {
    const Value judged = by_attribute ? dig(in, x, a.positional[0]) : x;
    bool yes = truth(judged);
    if (test) {
      Arguments rest{{a.positional.begin() + std::ptrdiff_t(first) + 1, a.positional.end()}, a.named};
      yes = in.apply_test(*test, judged, rest);
    }
    if (yes == wanted) out.push_back(x);
  }
  return make_sequence(in.heap, std::move(out), SequenceKind::iterator);
}

Value filter_reverse(Interpreter& in, const Value& v, Arguments&) {
  std::vector<Value> items = elements(in.heap, v);
  std::reverse(items.begin(), items.end());
  if (!v.text()) return make_sequence(in.heap, std::move(items), SequenceKind::iterator);
  std::string s;
  for (const Value& c : items) s += c.text()->bytes;
  return in.text(std::move(s));
}

Value filter_int(Interpreter&, const Value& v, Arguments& a) {
  const Value absent = a.get(0, "default") ? *a.get(0, "default") : Value(int64_t{0});
  if (v.exact()) return v.integer();
  if (v.undefined()) throw Fault{"template.undefined", "a number", "an undefined value"};
  double d = 0;
  if (v.text()) {
    const std::string s(strip(v.text()->bytes, {}, true, true));
    char* end = nullptr;
    const long long i = std::strtoll(s.c_str(), &end, int(a.integer(1, "base", 10)));
    if (!s.empty() && *end == 0) return int64_t(i);
    d = std::strtod(s.c_str(), &end);
    if (s.empty() || *end != 0) return absent;
  } else if (v.real()) {
    d = *v.real();
  } else {
    return absent;
  }
  return std::fabs(d) < 9e18 ? Value(int64_t(d)) : absent;
}

Value filter_float(Interpreter&, const Value& v, Arguments& a) {
  if (v.number()) return v.as_real();
  if (v.undefined()) throw Fault{"template.undefined", "a number", "an undefined value"};
  if (v.text()) {
    const std::string s(strip(v.text()->bytes, {}, true, true));
    char* end = nullptr;
    const double d = std::strtod(s.c_str(), &end);
    if (!s.empty() && *end == 0) return d;
  }
  return a.get(0, "default") ? *a.get(0, "default") : Value(0.0);
}

Value filter_round(Interpreter&, const Value& v, Arguments& a) {
  if (!v.number()) throw Fault{"template.type", "a number", type_name(v)};
  const std::string* how = a.text(1, "method");
  const double scale = std::pow(10.0, double(a.integer(0, "precision", 0)));
  const double x = v.as_real() * scale;
  if (!how || *how == "common") return std::nearbyint(x) / scale;
  return (*how == "ceil" ? std::ceil(x) : std::floor(x)) / scale;
}

Value extreme(Interpreter& in, const Value& v, Arguments& a, bool largest) {
  const Value* path = a.get(1, "attribute");
  const Value* best = nullptr;
  Value best_key;
  const std::vector<Value> items = elements(in.heap, v);
  for (const Value& x : items) {
    const Value key = folded(in, path ? dig(in, x, *path) : x, a.flag(0, "case_sensitive", false));
    if (best) {
      const int c = compare(in.heap, key, best_key);
      if (largest ? c <= 0 : c >= 0) continue;
    }
    best = &x;
    best_key = key;
  }
  return best ? *best : Value();
}

Value filter_sum(Interpreter& in, const Value& v, Arguments& a) {
  const Value* path = a.get(0, "attribute");
  Value total = a.get(1, "start") ? *a.get(1, "start") : Value(int64_t{0});
  for (const Value& x : elements(in.heap, v)) total = in.binary("+", total, path ? dig(in, x, *path) : x);
  return total;
}

Value filter_ends(Interpreter& in, const Value& v, bool last) {
  const std::vector<Value> items = elements(in.heap, v);
  return items.empty() ? Value() : last ? items.back() : items.front();
}

Value filter_escape(Interpreter& in, const Value& v, Arguments&) {
  return markup(v) ? v : in.text(escape_html(to_text(in.heap, v)), true);
}

const std::pair<std::string_view, Filter> kFilters[] = {
    {"tojson", filter_tojson},
    {"default", filter_default},
    {"d", filter_default},
    {"trim", filter_trim},
    {"join", filter_join},
    {"replace", filter_replace},
    {"indent", filter_indent},
    {"items", filter_items},
    {"dictsort", filter_dictsort},
    {"sort", filter_sort},
    {"unique", filter_unique},
    {"map", filter_map},
    {"reverse", filter_reverse},
    {"int", filter_int},
    {"float", filter_float},
    {"round", filter_round},
    {"sum", filter_sum},
    {"select", [](Interpreter& in, const Value& v, Arguments& a) { return choose(in, v, a, false, true); }},
    {"reject", [](Interpreter& in, const Value& v, Arguments& a) { return choose(in, v, a, false, false); }},
    {"selectattr",
     [](Interpreter& in, const Value& v, Arguments& a) { return choose(in, v, a, true, true); }},
    {"rejectattr",
     [](Interpreter& in, const Value& v, Arguments& a) { return choose(in, v, a, true, false); }},
    {"min", [](Interpreter& in, const Value& v, Arguments& a) { return extreme(in, v, a, false); }},
    {"max", [](Interpreter& in, const Value& v, Arguments& a) { return extreme(in, v, a, true); }},
    {"first", [](Interpreter& in, const Value& v, Arguments&) { return filter_ends(in, v, false); }},
    {"last", [](Interpreter& in, const Value& v, Arguments&) { return filter_ends(in, v, true); }},
    {"length", [](Interpreter&, const Value& v, Arguments&) { return Value(length(v)); }},
    {"count", [](Interpreter&, const Value& v, Arguments&) { return Value(length(v)); }},
    {"list", [](Interpreter& in, const Value& v,
                Arguments&) { return make_sequence(in.heap, elements(in.heap, v)); }},
    {"string",
     [](Interpreter& in, const Value& v, Arguments&) { return v.text() ? v : in.text(to_text(in.heap, v)); }},
    {"safe", [](Interpreter& in, const Value& v, Arguments&) { return in.text(to_text(in.heap, v), true); }},
    {"upper", [](Interpreter& in, const Value& v,
                 Arguments&) { return in.text(upper(to_text(in.heap, v)), markup(v)); }},
    {"lower", [](Interpreter& in, const Value& v,
                 Arguments&) { return in.text(lower(to_text(in.heap, v)), markup(v)); }},
    {"title", [](Interpreter& in, const Value& v,
                 Arguments&) { return in.text(title(to_text(in.heap, v)), markup(v)); }},
    {"capitalize", [](Interpreter& in, const Value& v,
                      Arguments&) { return in.text(capitalize(to_text(in.heap, v)), markup(v)); }},
    {"abs",
     [](Interpreter& in, const Value& v, Arguments&) {
       return compare(in.heap, v, int64_t{0}) < 0 ? in.binary("-", int64_t{0}, v) : v;
     }},
    {"attr", [](Interpreter& in, const Value& v,
                Arguments& a) { return in.attribute(v, to_text(in.heap, a.need(0, "name"))); }},
    {"escape", filter_escape},
    {"e", filter_escape},
    {"format",
     [](Interpreter& in, const Value& v, Arguments& a) {
       return in.binary("%", in.text(to_text(in.heap, v)),
                        make_sequence(in.heap, a.positional, SequenceKind::tuple));
     }},
};

}  // namespace

bool is_filter(std::string_view name) {
  return std::any_of(std::begin(kFilters), std::end(kFilters),
                     [&](const auto& f) { return f.first == name; });
}

Value Interpreter::apply_filter(const std::string& name, const Value& v, Arguments& arguments) {
  const Deeper deeper(*this);
  heap.step();
  for (const auto& [known, filter] : kFilters) {
    if (known == name) return filter(*this, v, arguments);
  }
  throw Fault{"template.unknown", "a known filter", name};
}

}  // namespace plumb::jinja
