// Runs the syntax tree of a chat template. Nothing a template does reaches outside: it sees the values it was
// given, the functions below and no more, as in Jinja2's ImmutableSandboxedEnvironment.
#pragma once

#include <ctime>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_parser.h"
#include "text/jinja_value.h"

namespace plumb::jinja {

struct Scope {
  Scope* parent;
  std::vector<std::pair<std::string, Value>> variables;
  bool kept = false;  // a macro was defined inside and may still be called
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* get(size_t i, std::string_view name) const;   // null when it was not given
  const Value& need(size_t i, std::string_view name) const;  // throws Fault
  int64_t integer(size_t i, std::string_view name, int64_t absent) const;
  bool flag(size_t i, std::string_view name, bool absent) const;
  const std::string* text(size_t i, std::string_view name) const;  // null when absent or None
  void at_most(size_t n) const;
};

class Interpreter {
 public:
  Interpreter(Heap& h, int64_t max_output, std::time_t now) : heap(h), max_output_(max_output), now_(now) {}
  ~Interpreter();

  void define(std::string name, Value v) { root_.variables.emplace_back(std::move(name), std::move(v)); }
  void redefine(const std::string& name, Value v) { set(name, std::move(v)); }

  /// The rendered text. Throws Error "template.*" with line and column.
  std::string render(const Node& tree);

  // For filters, tests and methods.
  Value call(const Value& function, Arguments& arguments);
  Value call_method(const Value& self, const std::string& name, const Arguments& arguments);
  Value attribute(const Value& object, std::string_view name);
  Value item(const Value& object, const Value& key);
  Value apply_filter(const std::string& name, const Value& v, Arguments& arguments);
  bool apply_test(const std::string& name, const Value& v, Arguments& arguments);
  Value text(std::string s, bool markup = false) { return make_text(heap, std::move(s), markup); }
  Value binary(const std::string& op, const Value& a, const Value& b);
  bool compares(const std::string& op, const Value& a, const Value& b);

  Heap& heap;

 private:
  enum class Flow { normal, leave, skip };
  struct Deeper {
    explicit Deeper(Interpreter& i);
    ~Deeper() { --interpreter.depth_; }
    Interpreter& interpreter;
  };
  class Inner;  // a scope for as long as it is on the stack

  Flow run(const Node& node);
  Flow run_all(const Node& body);
  Flow run_branch(const Node& node);
  Flow run_loop(const Node& node, const Value& over, int level);
  void run_with(const Node& node);
  std::string captured(const Node& body);
  void emit(std::string_view s);
  void assign(const Node& target, Value v);
  void set(const std::string& name, Value v);

  Value eval(const Node& node);
  Value eval_compound(const Node& node);
  Value eval_compare(const Node& node);
  Value eval_dict(const Node& node);
  Value eval_call(const Node& node, Value caller);
  Value eval_filter(const Node& node, const Value* from);
  Value eval_slice(const Value& object, const Node& slice);
  std::vector<Value> eval_all(const std::vector<NodePtr>& nodes);
  Arguments eval_arguments(const Node& node);
  Value look_up(const Node& node);
  Value make_macro(const Node& node, std::string name);
  Value call_macro(const Function& f, Arguments& arguments);
  Value call_global(const std::string& name, Arguments& arguments);
  Value call_loop(Loop& loop, const Arguments& arguments);
  Value make_namespace(Arguments& arguments);
  Value loop_attribute(const std::shared_ptr<Loop>& loop, std::string_view name);

  int64_t max_output_, outer_output_ = 0;
  std::time_t now_;
  Scope root_{nullptr, {}};
  Scope* scope_ = &root_;
  std::vector<std::unique_ptr<Scope>> kept_;
  std::vector<std::shared_ptr<Namespace>> spaces_;  // emptied at the end: they may hold themselves
  std::string out_;
  Place place_;
  int depth_ = 0;
};

}  // namespace plumb::jinja
