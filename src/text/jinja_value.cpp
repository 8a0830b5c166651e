#include "text/jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "base/utf8.h"

namespace plumb::jinja {
namespace {

constexpr int kMaxDepth = 100;                 // of nested values
constexpr int64_t kStepsBetweenChecks = 1024;  // of the clock

int64_t cpu_milliseconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return int64_t(t.tv_sec) * 1000 + t.tv_nsec / 1'000'000;
}

int checked_depth(int depth) {
  if (depth > kMaxDepth) throw Fault{"template.limit", "values nested at most 100 deep", "more"};
  return depth;
}

Fault mismatch(const char* what, const Value& v) { return {"template.type", what, type_name(v)}; }

int sign(bool less, bool greater) { return less ? -1 : greater ? 1 : 0; }

}  // namespace

Heap::Heap(int64_t bytes, int64_t steps, int64_t milliseconds)
    : limit_(bytes),
      steps_(steps),
      check_at_(std::max<int64_t>(0, steps - kStepsBetweenChecks)),
      total_(steps),
      milliseconds_(milliseconds),
      deadline_(cpu_milliseconds() + milliseconds) {}

void Heap::take(int64_t bytes) {
  room_for(bytes);
  used_ += bytes;
  step(bytes / 256);
}

void Heap::room_for(int64_t bytes) const {
  if (bytes > limit_ - used_) {
    throw Fault{"template.limit", fmt::format("at most {} bytes of values", limit_), "more"};
  }
}

void Heap::check() {
  if (steps_ < 0) throw Fault{"template.limit", fmt::format("at most {} steps", total_), "more"};
  if (cpu_milliseconds() > deadline_) {
    throw Fault{"template.limit", fmt::format("at most {} ms", milliseconds_), "more"};
  }
  check_at_ = std::max<int64_t>(0, steps_ - kStepsBetweenChecks);
}

int depth_of(const Value& v) {
  if (v.sequence()) return v.sequence()->depth;
  if (v.dict()) return v.dict()->depth;
  if (v.function()) return v.function()->depth;
  return v.loop() ? v.loop()->depth : 0;
}

Value make_text(Heap& heap, std::string bytes, bool markup) {
  const int64_t n = int64_t(bytes.size() + sizeof(Text));
  return std::shared_ptr<const Text>(new Text{{heap, n}, std::move(bytes), markup});
}

Value make_sequence(Heap& heap, std::vector<Value> items, SequenceKind kind) {
  int depth = 0;
  for (const Value& v : items) depth = std::max(depth, depth_of(v));
  const int64_t n = int64_t(items.size() * sizeof(Value) + sizeof(Sequence));
  return std::shared_ptr<Sequence>(new Sequence{{heap, n}, kind, checked_depth(depth + 1), std::move(items)});
}

Value make_dict(Heap& heap, std::vector<std::pair<Value, Value>> members) {
  int depth = 0;
  for (const auto& [key, value] : members) depth = std::max({depth, depth_of(key), depth_of(value)});
  const int64_t n = int64_t(members.size() * 2 * sizeof(Value) + sizeof(Dict));
  return std::shared_ptr<const Dict>(new Dict{{heap, n}, checked_depth(depth + 1), std::move(members)});
}

bool truth(const Value& v) {
  if (v.undefined() || v.none()) return false;
  if (v.exact()) return v.integer() != 0;
  if (v.real()) return *v.real() != 0;
  if (v.text()) return !v.text()->bytes.empty();
  if (v.sequence()) return v.sequence()->kind == SequenceKind::iterator || !v.sequence()->items.empty();
  return !v.dict() || !v.dict()->members.empty();
}

bool equal(Heap& heap, const Value& a, const Value& b) {
  heap.step();
  if (a.exact() && b.exact()) return a.integer() == b.integer();
  if (a.number() && b.number()) return a.as_real() == b.as_real();
  if (a.v.index() != b.v.index()) return false;
  if (a.undefined() || a.none()) return true;
  if (a.text()) return a.text()->bytes == b.text()->bytes;
  if (a.dict()) {
    if (a.dict() == b.dict()) return true;
    if (a.dict()->members.size() != b.dict()->members.size()) return false;
    for (const auto& [key, value] : a.dict()->members) {
      const Value* other = find(heap, *b.dict(), key);
      if (!other || !equal(heap, value, *other)) return false;
    }
    return true;
  }
  if (a.sequence()) {
    const Sequence &s = *a.sequence(), &t = *b.sequence();
    if (&s == &t) return true;
    if (s.kind != t.kind || s.kind == SequenceKind::iterator || s.kind == SequenceKind::values) return false;
    return std::equal(s.items.begin(), s.items.end(), t.items.begin(), t.items.end(),
                      [&](const Value& x, const Value& y) { return equal(heap, x, y); });
  }
  if (a.space()) return a.space() == b.space();
  if (a.loop()) return a.loop() == b.loop();
  return a.function() == b.function();
}

int compare(Heap& heap, const Value& a, const Value& b) {
  heap.step();
  if (a.exact() && b.exact()) return sign(a.integer() < b.integer(), a.integer() > b.integer());
  if (a.number() && b.number()) return sign(a.as_real() < b.as_real(), a.as_real() > b.as_real());
  if (a.text() && b.text()) return a.text()->bytes.compare(b.text()->bytes);  // UTF-8 sorts as code points do
  if (a.sequence() && b.sequence() && a.sequence()->kind == b.sequence()->kind &&
      a.sequence()->kind <= SequenceKind::tuple) {
    const auto &s = a.sequence()->items, &t = b.sequence()->items;
    for (size_t i = 0; i < std::min(s.size(), t.size()); ++i) {
      if (!equal(heap, s[i], t[i])) return compare(heap, s[i], t[i]);
    }
    return sign(s.size() < t.size(), s.size() > t.size());
  }
  throw Fault{"template.type", "two values that have an order",
              fmt::format("{} and {}", type_name(a), type_name(b))};
}

bool contains(Heap& heap, const Value& all, const Value& one) {
  if (all.text()) {
    if (!one.text()) throw mismatch("a string to look for in a string", one);
    heap.step(1 + int64_t(all.text()->bytes.size()) / 256);
    return all.text()->bytes.find(one.text()->bytes) != std::string::npos;
  }
  if (all.dict()) return find(heap, *all.dict(), one) != nullptr;
  const std::vector<Value> items = elements(heap, all);
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return equal(heap, v, one); });
}

const Value* find(Heap& heap, const Dict& dict, const Value& key) {
  if (key.dict() || (key.sequence() && key.sequence()->kind == SequenceKind::list)) {
    throw mismatch("a key that can be hashed", key);
  }
  for (const auto& [k, v] : dict.members) {
    if (equal(heap, k, key)) return &v;
  }
  return nullptr;
}

const Value* find(Heap& heap, const Dict& dict, std::string_view key) {
  heap.step(1 + int64_t(dict.members.size()) / 16);
  for (const auto& [k, v] : dict.members) {
    if (k.text() && k.text()->bytes == key) return &v;
  }
  return nullptr;
}

std::vector<Value> elements(Heap& heap, const Value& v) {
  std::vector<Value> out;
  if (v.undefined()) return out;
  if (const Sequence* s = v.sequence()) {
    heap.room_for(int64_t(s->items.size() * sizeof(Value)));
    heap.step(1 + int64_t(s->items.size()) / 8);
    if (s->kind == SequenceKind::iterator) return std::exchange(v.sequence()->items, {});
    return s->items;
  }
  if (const Dict* d = v.dict()) {
    heap.step(1 + int64_t(d->members.size()) / 8);
    for (const auto& [key, value] : d->members) out.push_back(key);
    return out;
  }
  if (const Text* t = v.text()) {
    for (size_t i = 0; i < t->bytes.size();) {
      const size_t n = size_t(utf8_step(t->bytes, i).length);
      out.push_back(make_text(heap, t->bytes.substr(i, n)));
      i += n;
    }
    return out;
  }
  if (v.loop()) return v.loop()->items;
  throw mismatch("something to walk over", v);
}

int64_t length(const Value& v) {
  if (v.undefined()) return 0;
  if (v.text()) {
    return std::count_if(v.text()->bytes.begin(), v.text()->bytes.end(),
                         [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  }
  if (v.sequence() && v.sequence()->kind != SequenceKind::iterator)
    return int64_t(v.sequence()->items.size());
  if (v.dict()) return int64_t(v.dict()->members.size());
  if (v.loop()) return int64_t(v.loop()->items.size());
  throw mismatch("something that has a length", v);
}

const char* type_name(const Value& v) {
  static constexpr const char* kNames[] = {"undefined", "None", "bool",      "int",      "float", "str",
                                           "sequence",  "dict", "namespace", "function", "loop"};
  static constexpr const char* kSequences[] = {"list",        "tuple",      "range",    "dict_keys",
                                               "dict_values", "dict_items", "generator"};
  return v.sequence() ? kSequences[size_t(v.sequence()->kind)] : kNames[v.v.index()];
}

}  // namespace plumb::jinja
