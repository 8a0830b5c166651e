#include "text/jinja_eval.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace plumb::jinja {

inline constexpr int kMaxEvalDepth = 1'000;  // nodes under way, macros included

Interpreter::Deeper::Deeper(Interpreter& i) : interpreter(i) {
  if (++i.depth_ > kMaxEvalDepth) {
    --i.depth_;
    throw Fault{"template.limit", fmt::format("recursion at most {} deep", kMaxEvalDepth), "more"};
  }
}

class Interpreter::Inner {
 public:
  Inner(Interpreter& i, Scope* parent)
      : interpreter_(i), before_(i.scope_), scope_(std::make_unique<Scope>(Scope{parent, {}})) {
    i.scope_ = scope_.get();
  }
  Inner(const Inner&) = delete;
  Inner& operator=(const Inner&) = delete;
  ~Inner() {
    interpreter_.scope_ = before_;
    if (scope_->kept) interpreter_.kept_.push_back(std::move(scope_));
  }

 private:
  Interpreter& interpreter_;
  Scope* before_;
  std::unique_ptr<Scope> scope_;
};

Interpreter::~Interpreter() {
  for (const auto& space : spaces_) space->members.clear();
}

std::string Interpreter::render(const Node& tree) {
  try {
    run_all(tree);
  } catch (Fault& f) {
    fail_at(place_, f.code, std::move(f.expected), printable(f.found, 400));
  }
  return std::move(out_);
}

void Interpreter::emit(std::string_view s) {
  if (outer_output_ + int64_t(out_.size() + s.size()) > max_output_) {
    throw Fault{"template.limit", fmt::format("at most {} bytes of output", max_output_), "more"};
  }
  heap.step(1 + int64_t(s.size()) / 256);
  out_ += s;
}

std::string Interpreter::captured(const Node& body) {
  const Inner inner(*this, scope_);
  std::string before = std::exchange(out_, {});
  outer_output_ += int64_t(before.size());
  run_all(body);
  outer_output_ -= int64_t(before.size());
  return std::exchange(out_, std::move(before));
}

Interpreter::Flow Interpreter::run_all(const Node& body) {
  for (const NodePtr& node : body.kids) {
    const Flow flow = run(*node);
    if (flow != Flow::normal) return flow;
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run(const Node& node) {
  const Deeper deeper(*this);
  heap.step();
  place_ = node.place;
  switch (node.op) {
    case Op::data:
      emit(node.text);
      break;
    case Op::output:
      emit(to_text(heap, eval(*node.kids[0])));
      break;
    case Op::branch:
      return run_branch(node);
    case Op::loop:
      return run_loop(node, eval(*node.kids[1]), 0);
    case Op::set:
      assign(*node.kids[0], eval(*node.kids[1]));
      break;
    case Op::set_block: {
      const Value v = text(captured(*node.kids[2]));
      assign(*node.kids[0], eval_filter(*node.kids[1], &v));
      break;
    }
    case Op::filter_block: {
      const Value v = text(captured(*node.kids[1]));
      emit(to_text(heap, eval_filter(*node.kids[0], &v)));
      break;
    }
    case Op::macro:
      set(node.text, make_macro(node, node.text));
      break;
    case Op::call_block:
      emit(to_text(heap, eval_call(*node.kids[0], make_macro(node, "caller"))));
      break;
    case Op::with:
      run_with(node);
      break;
    case Op::leave:
      return Flow::leave;
    case Op::skip:
      return Flow::skip;
    default:
      PLUMB_CHECK(false);
  }
  return Flow::normal;
}

Interpreter::Flow Interpreter::run_branch(const Node& node) {
  const size_t n = node.kids.size();
  for (size_t i = 0; i + 1 < n; i += 2) {
    if (truth(eval(*node.kids[i]))) return run_all(*node.kids[i + 1]);
  }
  return n % 2 ? run_all(*node.kids[n - 1]) : Flow::normal;
}

Interpreter::Flow Interpreter::run_loop(const Node& node, const Value& over, int level) {
  std::vector<Value> items = elements(heap, over);
  if (node.kids[2]->op != Op::none) {
    std::vector<Value> taken;
    for (Value& v : items) {
      const Inner inner(*this, scope_);
      assign(*node.kids[0], v);
      if (truth(eval(*node.kids[2]))) taken.push_back(std::move(v));
    }
    items = std::move(taken);
  }
  if (items.empty()) {
    const Inner inner(*this, scope_);
    return run_all(*node.kids[4]);
  }
  int depth = 0;
  for (const Value& v : items) depth = std::max(depth, depth_of(v));
  const int64_t bytes = int64_t(items.size() * sizeof(Value) + sizeof(Loop));
  const std::shared_ptr<Loop> loop(new Loop{
      {heap, bytes}, depth + 1, std::move(items), 0, level, {}, node.number ? &node : nullptr, scope_});
  for (; loop->index < int64_t(loop->items.size()); ++loop->index) {
    heap.step();
    const Inner inner(*this, scope_);
    set("loop", loop);
    assign(*node.kids[0], loop->items[size_t(loop->index)]);
    if (run_all(*node.kids[3]) == Flow::leave) break;
  }
  return Flow::normal;
}

void Interpreter::run_with(const Node& node) {
  std::vector<Value> values;
  for (size_t i = 1; i < node.kids.size(); i += 2) values.push_back(eval(*node.kids[i]));
  const Inner inner(*this, scope_);
  for (size_t i = 0; i < values.size(); ++i) assign(*node.kids[2 * i], std::move(values[i]));
  run_all(*node.kids.back());
}

void Interpreter::set(const std::string& name, Value v) {
  for (auto& [n, old] : scope_->variables) {
    if (n == name) {
      old = std::move(v);
      return;
    }
  }
  scope_->variables.emplace_back(name, std::move(v));
}

void Interpreter::assign(const Node& target, Value v) {
  place_ = target.place;
  if (target.op == Op::name) return set(target.text, std::move(v));
  if (target.op == Op::attribute) {
    const Value space = eval(*target.kids[0]);
    if (!space.space()) throw Fault{"template.type", "a namespace to set an attribute of", type_name(space)};
    if (target.text[0] == '_')
      throw Fault{"template.security", "an attribute without a leading _", target.text};
    for (auto& [name, old] : space.space()->members) {
      if (name == target.text) {
        old = std::move(v);
        return;
      }
    }
    space.space()->members.emplace_back(target.text, std::move(v));
    return;
  }
  std::vector<Value> items = elements(heap, v);
  if (v.undefined() || items.size() != target.kids.size()) {
    throw Fault{"template.value", fmt::format("{} values to unpack", target.kids.size()),
                fmt::format("{}", items.size())};
  }
  for (size_t i = 0; i < items.size(); ++i) assign(*target.kids[i], std::move(items[i]));
}

Value Interpreter::look_up(const Node& node) {
  for (Scope* s = scope_; s; s = s->parent) {
    for (auto& [name, v] : s->variables) {
      if (name == node.text) return v;
    }
  }
  for (const char* name : {"range", "dict", "namespace", "raise_exception", "strftime_now"}) {
    if (node.text == name) {
      return std::shared_ptr<const Function>(new Function{{heap, sizeof(Function)}, 0, name, {}});
    }
  }
  return Undefined{node.text};
}

Value Interpreter::make_macro(const Node& node, std::string name) {
  for (Scope* s = scope_; s && !s->kept; s = s->parent) s->kept = true;
  return std::shared_ptr<const Function>(
      new Function{{heap, sizeof(Function)}, 0, std::move(name), {}, &node, scope_});
}

Value Interpreter::eval(const Node& node) {
  const Deeper deeper(*this);
  heap.step();
  place_ = node.place;
  switch (node.op) {
    case Op::none:
      return Undefined{};
    case Op::text:
      return text(node.text);
    case Op::integer:
      return node.number;
    case Op::real:
      return node.real;
    case Op::boolean:
      return node.number != 0;
    case Op::null:
      return None{};
    case Op::name:
      return look_up(node);
    case Op::list:
      return make_sequence(heap, eval_all(node.kids));
    case Op::tuple:
      return make_sequence(heap, eval_all(node.kids), SequenceKind::tuple);
    case Op::dict:
      return eval_dict(node);
    case Op::compare:
      return eval_compare(node);
    case Op::call:
      return eval_call(node, {});
    case Op::filter:
      return eval_filter(node, nullptr);
    case Op::invert:
      return !truth(eval(*node.kids[0]));
    case Op::conditional:
      return truth(eval(*node.kids[0])) ? eval(*node.kids[1]) : eval(*node.kids[2]);
    case Op::both: {
      Value left = eval(*node.kids[0]);
      return truth(left) ? eval(*node.kids[1]) : left;
    }
    case Op::either: {
      Value left = eval(*node.kids[0]);
      return truth(left) ? left : eval(*node.kids[1]);
    }
    default:
      return eval_compound(node);
  }
}

Value Interpreter::eval_compound(const Node& node) {
  const Value first = eval(*node.kids[0]);
  place_ = node.place;
  switch (node.op) {
    case Op::attribute: {
      Value v = attribute(first, node.text);
      return v.undefined() ? Value(Undefined{node.text}) : v;
    }
    case Op::item: {
      if (node.kids[1]->op == Op::slice) return eval_slice(first, *node.kids[1]);
      const Value key = eval(*node.kids[1]);
      place_ = node.place;
      return item(first, key);
    }
    case Op::test: {
      Arguments arguments = eval_arguments(node);
      place_ = node.place;
      return apply_test(node.text, first, arguments);
    }
    case Op::negate:
      return binary("-", int64_t{0}, first);
    case Op::plus:
      return binary("+", int64_t{0}, first);
    case Op::binary: {
      const Value second = eval(*node.kids[1]);
      place_ = node.place;
      return binary(node.text, first, second);
    }
    case Op::concat: {
      std::string s = to_text(heap, first);
      for (size_t i = 1; i < node.kids.size(); ++i) {
        s += to_text(heap, eval(*node.kids[i]));
        heap.room_for(int64_t(s.size()));
      }
      return text(std::move(s));
    }
    default:
      PLUMB_CHECK(false);
      return {};
  }
}

std::vector<Value> Interpreter::eval_all(const std::vector<NodePtr>& nodes) {
  std::vector<Value> out;
  for (const NodePtr& n : nodes) out.push_back(eval(*n));
  return out;
}

Value Interpreter::eval_dict(const Node& node) {
  std::vector<std::pair<Value, Value>> members;
  for (size_t i = 0; i < node.kids.size(); i += 2) {
    Value key = eval(*node.kids[i]);
    Value v = eval(*node.kids[i + 1]);
    const auto same = std::find_if(members.begin(), members.end(),
                                   [&](const auto& m) { return equal(heap, m.first, key); });
    if (same != members.end()) {
      same->second = std::move(v);
    } else {
      members.emplace_back(std::move(key), std::move(v));
    }
  }
  return make_dict(heap, std::move(members));
}

Value Interpreter::eval_compare(const Node& node) {
  Value left = eval(*node.kids[0]);
  for (size_t i = 0; i < node.names.size(); ++i) {
    Value right = eval(*node.kids[i + 1]);
    place_ = node.place;
    if (!compares(node.names[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

Arguments Interpreter::eval_arguments(const Node& node) {
  Arguments a;
  a.positional = eval_all(node.args);
  for (const auto& [name, value] : node.named) {
    const Value v = eval(*value);
    if (name == "*") {
      for (Value& x : elements(heap, v)) a.positional.push_back(std::move(x));
    } else if (name == "**") {
      if (!v.dict()) throw Fault{"template.type", "a dict after **", type_name(v)};
      for (const auto& [k, x] : v.dict()->members) a.named.emplace_back(to_text(heap, k), x);
    } else {
      a.named.emplace_back(name, v);
    }
  }
  return a;
}

Value Interpreter::eval_call(const Node& node, Value caller) {
  const Value function = eval(*node.kids[0]);
  Arguments arguments = eval_arguments(node);
  if (!caller.undefined()) arguments.named.emplace_back("caller", std::move(caller));
  place_ = node.place;
  if (function.undefined()) {
    throw Fault{"template.undefined", "a function",
                fmt::format("'{}', which is undefined", std::get<Undefined>(function.v).name)};
  }
  return call(function, arguments);
}

// The filter's value, or `from` where the chain begins with nothing (blocks).
Value Interpreter::eval_filter(const Node& node, const Value* from) {
  if (node.op == Op::none) return *from;
  const Value v = from ? eval_filter(*node.kids[0], from) : eval(*node.kids[0]);
  Arguments arguments = eval_arguments(node);
  place_ = node.place;
  return apply_filter(node.text, v, arguments);
}

}  // namespace plumb::jinja
