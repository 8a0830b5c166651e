#include "text/jinja_methods.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_text.h"

namespace plumb::jinja {
namespace {

constexpr std::string_view kTextMethods[] = {
    "split",        "rsplit",    "strip",      "lstrip",  "rstrip",  "startswith", "endswith", "upper",
    "lower",        "title",     "capitalize", "replace", "find",    "rfind",      "index",    "count",
    "join",         "format",    "isdigit",    "isalpha", "isalnum", "isspace",    "isupper",  "islower",
    "isnumeric",    "isdecimal", "splitlines", "zfill",   "ljust",   "rjust",      "center",   "removeprefix",
    "removesuffix", "partition", "rpartition", "casefold"};
constexpr std::string_view kDictMethods[] = {"get", "keys", "values", "items", "copy"};
constexpr std::string_view kListMethods[] = {"count", "index", "copy"};
constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListChanges[] = {"append", "clear", "pop",    "reverse",
                                             "insert", "sort",  "extend", "remove"};

template <size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Value texts(Heap& heap, std::vector<std::string> parts, bool markup, SequenceKind kind = SequenceKind::list) {
  std::vector<Value> items;
  for (std::string& s : parts) items.push_back(make_text(heap, std::move(s), markup));
  return make_sequence(heap, std::move(items), kind);
}

const std::string& need_text(const Arguments& a, size_t i, std::string_view name) {
  const Value& v = a.need(i, name);
  if (!v.text()) throw Fault{"template.type", "a string", type_name(v)};
  return v.text()->bytes;
}

bool affix(const std::string& s, const Arguments& a, bool front) {
  const Value& wanted = a.need(0, "prefix");
  std::vector<Value> all{wanted};
  if (wanted.sequence() && wanted.sequence()->kind == SequenceKind::tuple) all = wanted.sequence()->items;
  const std::string_view rest =
      std::string_view(s).substr(byte_of(s, std::max<int64_t>(0, a.integer(1, "start", 0))));
  for (const Value& v : all) {
    if (!v.text()) throw Fault{"template.type", "a string or a tuple of strings", type_name(v)};
    if (front ? rest.starts_with(v.text()->bytes) : rest.ends_with(v.text()->bytes)) return true;
  }
  return false;
}

std::string padded(Heap& heap, const std::string& s, const Arguments& a, const std::string& name) {
  const int64_t missing = std::max<int64_t>(0, a.integer(0, "width", 0) - characters(s));
  heap.room_for(missing);
  const std::string* given = a.text(1, "fillchar");
  const char fill = name == "zfill" ? '0' : given && given->size() == 1 ? (*given)[0] : ' ';
  const auto n = size_t(missing);
  if (name == "ljust") return s + std::string(n, fill);
  if (name == "zfill" && !s.empty() && (s[0] == '-' || s[0] == '+'))
    return s[0] + std::string(n, fill) + s.substr(1);
  if (name != "center") return std::string(n, fill) + s;
  const size_t width = size_t(a.integer(0, "width", 0));
  const size_t left = n / 2 + (n & width & 1);
  return std::string(left, fill) + s + std::string(n - left, fill);
}

Value partition(Heap& heap, const std::string& s, const std::string& mark, bool last) {
  if (mark.empty()) throw Fault{"template.value", "a separator that is not empty", "an empty one"};
  const size_t i = last ? s.rfind(mark) : s.find(mark);
  std::vector<std::string> parts;
  if (i == s.npos) {
    parts = last ? std::vector<std::string>{"", "", s} : std::vector<std::string>{s, "", ""};
  } else {
    parts = {s.substr(0, i), mark, s.substr(i + mark.size())};
  }
  return texts(heap, std::move(parts), false, SequenceKind::tuple);
}

// str.format with {}, {0}, {name}; nothing after a colon or a dot.
std::string format_braces(Heap& heap, const std::string& s, const Arguments& a) {
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < s.size(); ++i) {
    if (s[i] != '{' && s[i] != '}') {
      out += s[i];
    } else if (i + 1 < s.size() && s[i + 1] == s[i]) {
      out += s[i++];
    } else {
      const size_t end = s[i] == '{' ? s.find('}', i) : s.npos;
      if (end == s.npos) throw Fault{"template.value", "a format with matching braces", s};
      const std::string field = s.substr(i + 1, end - i - 1);
      const bool digits = all_are(field, CharacterClass::digit) && field.size() < 4;
      size_t index = next;
      if (digits) index = size_t(std::atoi(field.c_str()));
      if (field.empty()) ++next;
      out += to_text(heap, field.empty() || digits ? a.need(index, {}) : a.need(SIZE_MAX, field));
      heap.room_for(int64_t(out.size()));
      i = end;
    }
  }
  return out;
}

Value search(const std::string& s, const Arguments& a, const std::string& name) {
  const std::string& wanted = need_text(a, 0, "sub");
  const size_t from = byte_of(s, std::max<int64_t>(0, a.integer(1, "start", 0)));
  if (name == "count") {
    if (wanted.empty()) return characters(s) + 1;
    int64_t n = 0;
    for (size_t i = from; (i = s.find(wanted, i)) != s.npos; i += wanted.size()) ++n;
    return n;
  }
  const size_t i = name == "rfind" ? s.rfind(wanted) : s.find(wanted, from);
  if (i != s.npos) return characters(std::string_view(s).substr(0, i));
  if (name == "index") throw Fault{"template.value", "a substring that is there", wanted};
  return int64_t{-1};
}

Value text_method(Interpreter& in, const Text& self, const std::string& name, const Arguments& a) {
  const std::string& s = self.bytes;
  in.heap.step(1 + int64_t(s.size()) / 64);
  if (name == "split" || name == "rsplit") {
    const std::string* mark = a.text(0, "sep");
    if (mark && mark->empty()) throw Fault{"template.value", "a separator that is not empty", "an empty one"};
    in.heap.room_for(int64_t(s.size()) * 16);
    const int64_t n = a.integer(1, "maxsplit", -1);
    return texts(in.heap, name == "split" ? split(s, mark, n) : rsplit(s, mark, n), self.markup);
  }
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const std::string* set = a.text(0, "chars");
    if (set && set->empty()) return in.text(s, self.markup);
    return in.text(std::string(strip(s, set ? *set : "", name != "rstrip", name != "lstrip")), self.markup);
  }
  if (name == "replace") {
    Arguments copy = a;
    if (const Value* n = a.get(2, "count")) {
      if (!n->exact()) throw Fault{"template.type", "a count", type_name(*n)};
    }
    need_text(a, 0, "old");
    need_text(a, 1, "new");
    return in.apply_filter("replace", in.text(s, self.markup), copy);
  }
  if (name == "upper") return in.text(upper(s), self.markup);
  if (name == "lower" || name == "casefold") return in.text(lower(s), self.markup);
  if (name == "title") return in.text(title(s), self.markup);
  if (name == "capitalize") return in.text(capitalize(s), self.markup);
  if (name == "startswith" || name == "endswith") return affix(s, a, name == "startswith");
  if (name == "find" || name == "rfind" || name == "index" || name == "count") return search(s, a, name);
  if (name == "format") return in.text(format_braces(in.heap, s, a));
  if (name == "splitlines") return texts(in.heap, splitlines(s, a.flag(0, "keepends", false)), self.markup);
  if (name == "partition" || name == "rpartition")
    return partition(in.heap, s, need_text(a, 0, "sep"), name[0] == 'r');
  if (name == "removeprefix")
    return in.text(s.starts_with(need_text(a, 0, "")) ? s.substr(need_text(a, 0, "").size()) : s);
  if (name == "removesuffix")
    return in.text(s.ends_with(need_text(a, 0, "")) ? s.substr(0, s.size() - need_text(a, 0, "").size()) : s);
  if (name == "isdigit" || name == "isnumeric" || name == "isdecimal")
    return all_are(s, CharacterClass::digit);
  if (name == "isalpha") return all_are(s, CharacterClass::alpha);
  if (name == "isalnum") return all_are(s, CharacterClass::alnum);
  if (name == "isspace") return all_are(s, CharacterClass::space);
  if (name == "isupper") return all_are(s, CharacterClass::upper);
  if (name == "islower") return all_are(s, CharacterClass::lower);
  if (name != "join") return in.text(padded(in.heap, s, a, name));
  std::string out;
  bool first = true;
  for (const Value& v : elements(in.heap, a.need(0, "iterable"))) {
    if (!v.text()) throw Fault{"template.type", "strings to join", type_name(v)};
    if (!std::exchange(first, false)) out += s;
    out += v.text()->bytes;
    in.heap.room_for(int64_t(out.size()));
  }
  return in.text(std::move(out));
}

Value dict_method(Heap& heap, const Dict& d, const std::string& name, const Arguments& a) {
  if (name == "copy") return make_dict(heap, d.members);
  if (name == "get") {
    a.at_most(2);
    if (const Value* v = find(heap, d, a.need(0, "key"))) return *v;
    const Value* absent = a.get(1, "default");
    return absent ? *absent : Value(None{});
  }
  a.at_most(0);
  heap.room_for(int64_t(d.members.size()) * 128);
  std::vector<Value> items;
  for (const auto& [k, v] : d.members) {
    if (name == "items") {
      items.push_back(make_sequence(heap, {k, v}, SequenceKind::tuple));
    } else {
      items.push_back(name == "keys" ? k : v);
    }
  }
  return make_sequence(heap, std::move(items),
                       name == "keys"     ? SequenceKind::keys
                       : name == "values" ? SequenceKind::values
                                          : SequenceKind::items);
}

// One number as printf's `%` flags kind shows it.
std::string formatted_number(std::string flags, char kind, const Value& value) {
  const Value* v = &value;
  if (std::count(flags.begin(), flags.end(), '.') > 1)
    throw Fault{"template.value", "a number's format", flags};
  if (flags.starts_with('-')) flags[0] = '<';
  const bool real = kind == 'f' || kind == 'e' || kind == 'g';
  const std::string full = fmt::format("{{:{}{}}}", flags, kind == 'i' ? 'd' : kind);
  try {
    return real ? fmt::format(fmt::runtime(full), v->as_real())
                : fmt::format(fmt::runtime(full), v->real() ? int64_t(v->as_real()) : v->integer());
  } catch (const fmt::format_error&) {
    throw Fault{"template.value", "a number's format", flags};
  }
}

}  // namespace

bool is_method(const Value& object, std::string_view name) {
  if (object.text()) return among(kTextMethods, name);
  if (object.dict()) return among(kDictMethods, name);
  if (!object.sequence()) return false;
  const SequenceKind kind = object.sequence()->kind;
  return kind <= SequenceKind::tuple && among(kListMethods, name) &&
         (kind == SequenceKind::list || name != "copy");
}

bool is_forbidden(const Value& object, std::string_view name) {
  if (object.dict()) return among(kDictChanges, name);
  return object.sequence() && object.sequence()->kind == SequenceKind::list && among(kListChanges, name);
}

Value Interpreter::call_method(const Value& self, const std::string& name, const Arguments& a) {
  if (self.text()) return text_method(*this, *self.text(), name, a);
  if (self.dict()) return dict_method(heap, *self.dict(), name, a);
  const std::vector<Value>& items = self.sequence()->items;
  if (name == "copy") return make_sequence(heap, items);
  int64_t n = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!equal(heap, items[i], a.need(0, "value"))) continue;
    if (name == "index") return int64_t(i);
    ++n;
  }
  if (name == "index") throw Fault{"template.value", "a value that is in the list", "another one"};
  return n;
}

std::string format_percent(Heap& heap, std::string_view format, const std::vector<Value>& values,
                           const Value& all) {
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const Value* v = nullptr;
    size_t end = i + 1;
    if (end < format.size() && format[end] == '(') {
      const size_t close = format.find(')', end);
      if (close == format.npos || !all.dict())
        throw Fault{"template.value", "a dict and a whole format", std::string(format)};
      v = find(heap, *all.dict(), format.substr(end + 1, close - end - 1));
      end = close + 1;
    }
    const size_t spec = end;
    while (end < format.size() &&
           std::string_view("0123456789.-+ ").find(format[end]) != std::string_view::npos)
      ++end;
    const char kind = end < format.size() ? format[end] : ' ';
    std::string flags(format.substr(spec, end - spec));
    i = end;
    if (kind == '%') {
      out += '%';
      continue;
    }
    if (!v) {
      if (next >= values.size())
        throw Fault{"template.type", "a value for each part of the format", "too few"};
      v = &values[next++];
    }
    if (flags.size() > 6) throw Fault{"template.limit", "widths below 100000", flags};
    if (kind == 's' || kind == 'r') {
      const std::string s = kind == 's' ? to_text(heap, *v) : repr(heap, *v);
      const bool left = !flags.empty() && flags[0] == '-';
      const int width = std::atoi(flags.c_str() + left);
      const std::string fill(size_t(std::max<int64_t>(0, width - characters(s))), ' ');
      out += left ? s + fill : fill + s;
    } else if (std::string_view("dixXfeg").find(kind) != std::string_view::npos && v->number()) {
      out += formatted_number(flags, kind, *v);
    } else {
      throw Fault{"template.type", "a value that fits its format", type_name(*v)};
    }
    heap.room_for(int64_t(out.size()));
  }
  if (next < values.size() && !all.dict())
    throw Fault{"template.type", "a part of the format for each value", "too few"};
  return out;
}

}  // namespace plumb::jinja
