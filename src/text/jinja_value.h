// The values that a chat template computes with: Python's, as far as Jinja2 templates can see them. Compound
// values are shared and, but for namespaces and one-shot iterators, never change after they were made. Every
// compound value is charged to a Heap, so that a template cannot take more memory than it was given.
// Source: the Jinja2 3.1 documentation and the Python 3 language reference.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace plumb::jinja {

struct Node;
struct Scope;
struct Value;

/// What goes wrong inside a value's operation; the evaluator adds the place in the template.
struct Fault {
  const char* code;
  std::string expected, found;
};

/// The allowance of one rendering: steps, bytes alive, CPU time. Exceeding one throws Fault "template.limit".
class Heap {
 public:
  Heap(int64_t bytes, int64_t steps, int64_t milliseconds);
  void take(int64_t bytes);
  void give(int64_t bytes) { used_ -= bytes; }
  void room_for(int64_t bytes) const;  // throws when so many more would be too many
  void step(int64_t n = 1) {
    steps_ -= n;
    if (steps_ < check_at_) check();
  }

 private:
  void check();
  int64_t limit_, used_ = 0, steps_, check_at_, total_, milliseconds_, deadline_;
};

/// Takes bytes from a heap for as long as its owner lives.
struct Charge {
  Charge(Heap& h, int64_t n) : heap(&h), bytes(n) { heap->take(n); }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;
  ~Charge() { heap->give(bytes); }
  Heap* heap;
  int64_t bytes;
};

struct Undefined {
  std::string_view name;  // lives as long as the template
};
struct None {};

struct Text {
  Charge charge;
  std::string bytes;  // UTF-8
  bool markup;        // made by the filter `safe`: + escapes its other side
};

enum class SequenceKind : uint8_t { list, tuple, range, keys, values, items, iterator };

struct Sequence {
  Charge charge;
  SequenceKind kind;
  int depth;                 // of nesting, 1 for a sequence of scalars
  std::vector<Value> items;  // an iterator's are taken by the first who walks over them
};

struct Dict {
  Charge charge;
  int depth;
  std::vector<std::pair<Value, Value>> members;  // in the order of insertion, keys distinct
};

struct Namespace {
  Charge charge;
  std::vector<std::pair<std::string, Value>> members;
};

struct Function;
struct Loop;

struct Value {
  using Kinds =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                   std::shared_ptr<Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                   std::shared_ptr<const Function>, std::shared_ptr<Loop>>;
  Kinds v;

  Value() = default;
  template <class T>
    requires std::is_constructible_v<Kinds, T>
  Value(T x) : v(std::move(x)) {}

  bool undefined() const { return std::holds_alternative<Undefined>(v); }
  bool none() const { return std::holds_alternative<None>(v); }
  const bool* boolean() const { return std::get_if<bool>(&v); }
  const double* real() const { return std::get_if<double>(&v); }
  bool exact() const { return std::holds_alternative<int64_t>(v) || boolean(); }  // an int or a bool
  bool number() const { return exact() || real(); }
  int64_t integer() const { return boolean() ? int64_t(*boolean()) : std::get<int64_t>(v); }
  double as_real() const { return real() ? *real() : double(integer()); }
  const Text* text() const { return pointer<std::shared_ptr<const Text>>(); }
  Sequence* sequence() const { return pointer<std::shared_ptr<Sequence>>(); }
  const Dict* dict() const { return pointer<std::shared_ptr<const Dict>>(); }
  Namespace* space() const { return pointer<std::shared_ptr<Namespace>>(); }
  const Function* function() const { return pointer<std::shared_ptr<const Function>>(); }
  Loop* loop() const { return pointer<std::shared_ptr<Loop>>(); }

 private:
  template <class P>
  typename P::element_type* pointer() const {
    const P* p = std::get_if<P>(&v);
    return p ? p->get() : nullptr;
  }
};

/// A method bound to its object, a global function or a macro.
struct Function {
  Charge charge;
  int depth;
  std::string name;
  Value self;                   // of a method
  const Node* macro = nullptr;  // of a macro or a caller block
  Scope* scope = nullptr;       // where the macro was defined
};

/// The variable `loop` of a for statement.
struct Loop {
  Charge charge;
  int depth;
  std::vector<Value> items;
  int64_t index = 0;
  int level = 0;
  Value changed;  // what loop.changed was last given
  const Node* statement = nullptr;
  Scope* scope = nullptr;
};

int depth_of(const Value& v);
Value make_text(Heap& heap, std::string bytes, bool markup = false);
Value make_sequence(Heap& heap, std::vector<Value> items, SequenceKind kind = SequenceKind::list);
Value make_dict(Heap& heap, std::vector<std::pair<Value, Value>> members);

bool truth(const Value& v);
bool equal(Heap& heap, const Value& a, const Value& b);
int compare(Heap& heap, const Value& a,
            const Value& b);  // negative, 0, positive; throws Fault on unlike kinds
bool contains(Heap& heap, const Value& all, const Value& one);
const Value* find(Heap& heap, const Dict& dict, const Value& key);
const Value* find(Heap& heap, const Dict& dict, std::string_view key);
std::vector<Value> elements(Heap& heap, const Value& v);  // as `for` walks over it; throws Fault
int64_t length(const Value& v);                           // throws Fault
const char* type_name(const Value& v);                    // Python's

std::string to_text(Heap& heap, const Value& v);  // str()
std::string repr(Heap& heap, const Value& v);
std::string real_text(double v);  // repr() of a float

struct JsonFormat {
  bool ascii = false, sorted = false;
  int indent = -1;  // negative: one line
  std::string indent_text, comma = ", ", colon = ": ";
};
std::string to_json(Heap& heap, const Value& v, const JsonFormat& format);

}  // namespace plumb::jinja
