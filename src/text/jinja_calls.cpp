// Calls, attributes, items, slices and operators of chat templates.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/jinja_eval.h"
#include "text/jinja_methods.h"
#include "text/jinja_text.h"

namespace plumb::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // Jinja2's MAX_RANGE

[[noreturn]] void refuse_undefined(const Value& v, const char* expected) {
  throw Fault{"template.undefined", expected,
              fmt::format("'{}', which is undefined", std::get<Undefined>(v.v).name)};
}

Fault unlike(const std::string& op, const Value& a, const Value& b) {
  return {"template.type", fmt::format("values that '{}' joins", op),
          fmt::format("{} and {}", type_name(a), type_name(b))};
}

Value integer_result(const std::string& op, int64_t a, int64_t b) {
  int64_t r = 0;
  bool over = false;
  if (op == "+") over = __builtin_add_overflow(a, b, &r);
  if (op == "-") over = __builtin_sub_overflow(a, b, &r);
  if (op == "*") over = __builtin_mul_overflow(a, b, &r);
  if (op == "/" || op == "//" || op == "%") {
    if (b == 0) throw Fault{"template.value", "a divisor other than 0", "0"};
    if (op == "/") return double(a) / double(b);
    over = b == -1 && a == INT64_MIN;
    if (!over) r = op == "//" ? a / b - (a % b != 0 && (a < 0) != (b < 0)) : (a % b + b) % b;
  }
  if (op == "**") {
    if (b < 0) return std::pow(double(a), double(b));
    r = 1;
    for (int64_t i = 0; i < b && !over && (r != 0) && !(a == 1); ++i) {
      if (a == 0 || a == -1) {
        r = a == 0 ? 0 : b % 2 ? -1 : 1;
        break;
      }
      over = __builtin_mul_overflow(r, a, &r);
    }
  }
  if (over) throw Fault{"template.value", "integers of 64 bits", "a larger one"};
  return r;
}

Value real_result(const std::string& op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) throw Fault{"template.value", "a divisor other than 0", "0"};
  if (op == "/") return a / b;
  if (op == "//") return std::floor(a / b);
  const double r = std::fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

// Sequence or text times an integer.
Value repeated(Heap& heap, const Value& v, int64_t n) {
  n = std::max<int64_t>(n, 0);
  const int64_t one =
      v.text() ? int64_t(v.text()->bytes.size()) : int64_t(v.sequence()->items.size() * sizeof(Value));
  if (one != 0 && n > INT64_MAX / 2 / one) n = INT64_MAX / 2 / one;
  heap.room_for(one * n);
  if (one == 0) n = 0;
  if (v.text()) {
    std::string s;
    for (int64_t i = 0; i < n; ++i) s += v.text()->bytes;
    return make_text(heap, std::move(s), v.text()->markup);
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < n; ++i)
    items.insert(items.end(), v.sequence()->items.begin(), v.sequence()->items.end());
  return make_sequence(heap, std::move(items), v.sequence()->kind);
}

bool concatenable(const Value& v) { return v.sequence() && v.sequence()->kind <= SequenceKind::tuple; }

std::string joined(const Value& v, bool markup) {
  return markup && !v.text()->markup ? escape_html(v.text()->bytes) : v.text()->bytes;
}

}  // namespace

Value Interpreter::binary(const std::string& op, const Value& a, const Value& b) {
  if (op == "%" && a.text()) {
    std::vector<Value> values{b};
    if (b.sequence() && b.sequence()->kind == SequenceKind::tuple) values = b.sequence()->items;
    return text(format_percent(heap, a.text()->bytes, values, b), a.text()->markup);
  }
  if (a.undefined()) refuse_undefined(a, "a value");
  if (b.undefined()) refuse_undefined(b, "a value");
  if (a.exact() && b.exact()) return integer_result(op, a.integer(), b.integer());
  if (a.number() && b.number()) return real_result(op, a.as_real(), b.as_real());
  if (op == "+" && a.text() && b.text()) {
    const bool markup = a.text()->markup || b.text()->markup;
    heap.room_for(int64_t(a.text()->bytes.size() + b.text()->bytes.size()));
    return text(joined(a, markup) + joined(b, markup), markup);
  }
  if (op == "+" && concatenable(a) && concatenable(b) && a.sequence()->kind == b.sequence()->kind) {
    std::vector<Value> items = elements(heap, a);
    for (Value& v : elements(heap, b)) items.push_back(std::move(v));
    return make_sequence(heap, std::move(items), a.sequence()->kind);
  }
  if (op == "*" && (a.text() || concatenable(a)) && b.exact()) return repeated(heap, a, b.integer());
  if (op == "*" && (b.text() || concatenable(b)) && a.exact()) return repeated(heap, b, a.integer());
  throw unlike(op, a, b);
}

bool Interpreter::compares(const std::string& op, const Value& a, const Value& b) {
  if (op == "==") return equal(heap, a, b);
  if (op == "!=") return !equal(heap, a, b);
  if (op == "in") return contains(heap, b, a);
  if (op == "not in") return !contains(heap, b, a);
  if (a.undefined()) refuse_undefined(a, "a value with an order");
  if (b.undefined()) refuse_undefined(b, "a value with an order");
  const int c = compare(heap, a, b);
  if (op == "<") return c < 0;
  if (op == "<=") return c <= 0;
  return op == ">" ? c > 0 : c >= 0;
}

Value Interpreter::loop_attribute(const std::shared_ptr<Loop>& loop, std::string_view name) {
  const int64_t n = int64_t(loop->items.size()), i = loop->index;
  if (name == "index") return i + 1;
  if (name == "index0") return i;
  if (name == "first") return i == 0;
  if (name == "last") return i == n - 1;
  if (name == "length") return n;
  if (name == "revindex") return n - i;
  if (name == "revindex0") return n - i - 1;
  if (name == "depth") return int64_t(loop->level + 1);
  if (name == "depth0") return int64_t(loop->level);
  if (name == "previtem") return i > 0 ? loop->items[size_t(i - 1)] : Value();
  if (name == "nextitem") return i + 1 < n ? loop->items[size_t(i + 1)] : Value();
  if (name == "cycle" || name == "changed") {
    return std::shared_ptr<const Function>(
        new Function{{heap, sizeof(Function)}, loop->depth + 1, std::string(name), loop});
  }
  return {};
}

Value Interpreter::attribute(const Value& object, std::string_view name) {
  if (object.undefined())
    refuse_undefined(object, fmt::format("a value with the attribute '{}'", name).c_str());
  if (object.loop()) return loop_attribute(std::get<std::shared_ptr<Loop>>(object.v), name);
  if (const Namespace* space = object.space()) {
    for (const auto& [key, v] : space->members) {
      if (key == name) return v;
    }
    return {};
  }
  if (!name.starts_with('_')) {
    if (is_forbidden(object, name)) return {};  // it would change the value
    if (is_method(object, name)) {
      return std::shared_ptr<const Function>(
          new Function{{heap, sizeof(Function)}, depth_of(object) + 1, std::string(name), object});
    }
  }
  if (object.dict()) {
    if (const Value* v = find(heap, *object.dict(), name)) return *v;
  }
  return {};
}

Value Interpreter::item(const Value& object, const Value& key) {
  if (object.undefined()) refuse_undefined(object, "a value that has items");
  if (object.dict()) {
    const bool hashable = !key.dict() && !(key.sequence() && key.sequence()->kind == SequenceKind::list);
    if (const Value* v = hashable ? find(heap, *object.dict(), key) : nullptr) return *v;
  }
  const bool indexed = object.text() || (object.sequence() && object.sequence()->kind <= SequenceKind::range);
  if (indexed && key.exact()) {
    const int64_t n = length(object);
    const int64_t i = key.integer() < 0 ? key.integer() + n : key.integer();
    if (i < 0 || i >= n) return {};
    if (object.sequence()) return object.sequence()->items[size_t(i)];
    const std::string& s = object.text()->bytes;
    const size_t begin = byte_of(s, i);
    return text(s.substr(begin, byte_of(std::string_view(s).substr(begin), 1)), object.text()->markup);
  }
  return key.text() ? attribute(object, key.text()->bytes) : Value();
}

Value Interpreter::eval_slice(const Value& object, const Node& slice) {
  const auto part = [&](size_t i, int64_t absent) {
    if (slice.kids[i]->op == Op::none) return absent;
    const Value v = eval(*slice.kids[i]);
    if (v.none()) return absent;
    if (!v.exact()) throw Fault{"template.type", "an integer in a slice", type_name(v)};
    return v.integer();
  };
  const int64_t step = part(2, 1);
  const int64_t begin = part(0, INT64_MIN), end = part(1, INT64_MIN);
  place_ = slice.place;
  if (object.undefined()) refuse_undefined(object, "a value that has items");
  if (!object.text() && !(object.sequence() && object.sequence()->kind <= SequenceKind::range)) return {};
  if (step == 0) throw Fault{"template.value", "a step other than 0", "0"};
  std::vector<Value> items = elements(heap, object);
  const auto n = int64_t(items.size());
  const auto clamp = [&](int64_t i, int64_t absent) {
    if (i == INT64_MIN) return absent;
    if (i < 0) i = std::max<int64_t>(i + n, step > 0 ? 0 : -1);
    return std::min(i, step > 0 ? n : n - 1);
  };
  const int64_t last = clamp(end, step > 0 ? n : -1);
  std::vector<Value> out;
  for (int64_t i = clamp(begin, step > 0 ? 0 : n - 1); step > 0 ? i < last : i > last;) {
    out.push_back(items[size_t(i)]);
    if (step > n || step < -n) break;
    i += step;
  }
  if (object.sequence()) {
    return make_sequence(heap, std::move(out), object.sequence()->kind);
  }
  std::string s;
  for (const Value& v : out) s += v.text()->bytes;
  return text(std::move(s), object.text()->markup);
}

Value Interpreter::call(const Value& function, Arguments& arguments) {
  const Deeper deeper(*this);
  heap.step();
  if (function.loop()) return call_loop(*function.loop(), arguments);
  const Function* f = function.function();
  if (!f) throw Fault{"template.type", "something to call", type_name(function)};
  if (f->macro) return call_macro(*f, arguments);
  if (f->self.loop()) {
    Loop& loop = *f->self.loop();
    if (f->name == "cycle") {
      if (arguments.positional.empty()) throw Fault{"template.type", "values to cycle through", "none"};
      return arguments.positional[size_t(loop.index) % arguments.positional.size()];
    }
    const Value given = make_sequence(heap, arguments.positional, SequenceKind::tuple);
    const bool same = !loop.changed.undefined() && equal(heap, loop.changed, given);
    loop.changed = given;
    return !same;
  }
  return f->self.undefined() ? call_global(f->name, arguments) : call_method(f->self, f->name, arguments);
}

Value Interpreter::call_loop(Loop& loop, const Arguments& arguments) {
  if (!loop.statement) throw Fault{"template.type", "a loop that is recursive", "one that is not"};
  std::string before = std::exchange(out_, {});
  Scope* scope = std::exchange(scope_, loop.scope);
  run_loop(*loop.statement, arguments.need(0, "iterable"), loop.level + 1);
  scope_ = scope;
  return text(std::exchange(out_, std::move(before)));
}

Value Interpreter::call_macro(const Function& f, Arguments& arguments) {
  const Node& macro = *f.macro;
  const Place place = place_;
  const size_t n = macro.names.size(), given = std::min(n, arguments.positional.size());
  if (arguments.positional.size() > n && !(macro.number & kTakesVarargs)) {
    throw Fault{"template.type", fmt::format("at most {} arguments of {}", n, f.name),
                fmt::format("{}", arguments.positional.size())};
  }
  Scope* const outside = std::exchange(scope_, f.scope);
  std::vector<std::pair<Value, Value>> rest;
  std::string s;
  {
    auto scope = std::make_unique<Scope>(Scope{f.scope, {}});
    scope_ = scope.get();
    for (size_t i = 0; i < n; ++i)
      set(macro.names[i], i < given ? arguments.positional[i] : Value(Undefined{macro.names[i]}));
    std::vector<bool> known(n);
    for (size_t i = 0; i < given; ++i) known[i] = true;
    for (auto& [name, v] : arguments.named) {
      const auto at = size_t(std::find(macro.names.begin(), macro.names.end(), name) - macro.names.begin());
      if (at < n && known[at]) throw Fault{"template.type", "each argument once", name};
      if (at < n) {
        known[at] = true;
      } else if (name != "caller" && !(macro.number & kTakesKwargs)) {
        throw Fault{"template.type", fmt::format("an argument of {}", f.name), name};
      } else if (name != "caller") {
        rest.emplace_back(text(name), v);
        continue;
      }
      set(name, v);
    }
    if (macro.number & kTakesVarargs) {
      set("varargs",
          make_sequence(heap,
                        {arguments.positional.begin() + std::ptrdiff_t(given), arguments.positional.end()},
                        SequenceKind::tuple));
    }
    if (macro.number & kTakesKwargs) set("kwargs", make_dict(heap, std::move(rest)));
    for (size_t i = n - macro.args.size(); i < n; ++i) {
      if (!known[i]) set(macro.names[i], eval(*macro.args[i - (n - macro.args.size())]));
    }
    s = captured(*macro.kids.back());
    if (scope->kept) kept_.push_back(std::move(scope));
  }
  scope_ = outside;
  place_ = place;
  return text(std::move(s));
}

Value Interpreter::make_namespace(Arguments& arguments) {
  auto space = std::shared_ptr<Namespace>(new Namespace{{heap, 256}, {}});
  const auto put = [&](std::string name, const Value& v) {
    if (name.starts_with('_')) throw Fault{"template.security", "an attribute without a leading _", name};
    space->members.emplace_back(std::move(name), v);
  };
  for (const Value& v : arguments.positional) {
    if (!v.dict()) throw Fault{"template.type", "a dict", type_name(v)};
    for (const auto& [k, x] : v.dict()->members) put(to_text(heap, k), x);
  }
  for (const auto& [name, v] : arguments.named) put(name, v);
  spaces_.push_back(space);
  return space;
}

Value Interpreter::call_global(const std::string& name, Arguments& arguments) {
  if (name == "namespace") return make_namespace(arguments);
  if (name == "raise_exception") {
    throw Fault{"template.raised", "a conversation that the template accepts",
                to_text(heap, arguments.need(0, "message"))};
  }
  if (name == "strftime_now") {
    const std::string* format = arguments.text(0, "format");
    if (!format) throw Fault{"template.type", "a format", "none"};
    std::tm t{};
    localtime_r(&now_, &t);
    char buffer[1024];
    return text(std::string(buffer, std::strftime(buffer, sizeof buffer, format->c_str(), &t)));
  }
  if (name == "dict") {
    std::vector<std::pair<Value, Value>> members;
    if (const Value* from = arguments.positional.empty() ? nullptr : &arguments.positional[0]) {
      if (!from->dict()) throw Fault{"template.type", "a dict", type_name(*from)};
      members = from->dict()->members;
    }
    for (auto& [k, v] : arguments.named) {
      std::erase_if(members, [&](const auto& m) { return m.first.text() && m.first.text()->bytes == k; });
      members.emplace_back(text(k), v);
    }
    return make_dict(heap, std::move(members));
  }
  arguments.at_most(3);
  const bool one = arguments.positional.size() == 1;
  int64_t begin = one ? 0 : arguments.integer(0, {}, 0), step = arguments.integer(2, {}, 1);
  const int64_t end = arguments.integer(one ? 0 : 1, {}, INT64_MIN);
  if (end == INT64_MIN || step == 0)
    throw Fault{"template.type", "range(end) or range(begin, end, step)", "other arguments"};
  std::vector<Value> items;
  for (; step > 0 ? begin < end : begin > end;) {
    if (int64_t(items.size()) == kMaxRange)
      throw Fault{"template.limit", fmt::format("ranges of at most {} elements", kMaxRange), "more"};
    items.push_back(begin);
    if (__builtin_add_overflow(begin, step, &begin)) break;
  }
  return make_sequence(heap, std::move(items), SequenceKind::range);
}

}  // namespace plumb::jinja
