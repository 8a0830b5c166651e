#include "trace/edits.h"

#include <charconv>

namespace plumb::trace {

std::string short_name(std::string_view name) {
  if (name.ends_with(".weight")) name.remove_suffix(7);
  if (name.starts_with("blk.")) name.remove_prefix(std::min(name.size(), name.find('.', 4) + 1));
  return std::string(name);
}

bool listed(std::string_view list, std::string_view name) {
  if (list == "*") return true;
  for (size_t at = 0; at <= list.size();) {
    const size_t end = std::min(list.find(' ', at), list.size());
    if (list.substr(at, end - at) == name) return true;
    at = end + 1;
  }
  return false;
}

int layer_of(std::string_view name) {
  int layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

Edit after(std::string list, std::function<void(WrongNode&, double)> change) {
  return [=](Variant& v, double parameter) -> std::string {
    bool any = false;
    for (Node& node : v.program.nodes) {
      if (listed(list, short_name(node.name))) change(node.wrong, parameter), any = true;
    }
    return any ? "" : "the model has no such value";
  };
}

Edit in_steps(Edit edit) {
  return [=](Variant& v, double parameter) -> std::string {
    Variant wrong = v;
    if (std::string why = edit(wrong, parameter); !why.empty()) return why;
    for (size_t i = 0; i < v.program.nodes.size(); ++i)
      v.program.nodes[i].in_steps = std::make_shared<const Op>(wrong.program.nodes[i].op);
    return {};
  };
}

Edit both(Edit a, Edit b) {
  return [=](Variant& v, double parameter) -> std::string {
    std::string why = a(v, parameter);
    return why.empty() ? b(v, parameter) : why;
  };
}

Edit where(std::function<std::string(const Variant&)> condition, Edit edit) {
  return [=](Variant& v, double parameter) -> std::string {
    std::string why = condition(v);
    return why.empty() ? edit(v, parameter) : why;
  };
}

Value node_of(const Program& p, int layer, std::string_view name) {
  return p.find("blk." + std::to_string(layer) + "." + std::string(name));
}

std::vector<Value> nodes_named(const Program& p, std::string_view name) {
  std::vector<Value> found;
  for (size_t i = 0; i < p.nodes.size(); ++i) {
    if (short_name(p.nodes[i].name) == name) found.push_back(Value(i));
  }
  return found;
}

Value insert_behind(Program& p, Value v, Op op) {
  Node node = p.nodes[size_t(v)];
  node.op = std::move(op), node.in = {v}, node.wrong = {}, node.in_steps = nullptr;
  p.nodes[size_t(v)].name += ".before";
  for (Node& other : p.nodes) {
    for (Value& in : other.in) in += in >= v;  // later values move up; readers of v read the new one
  }
  p.nodes.insert(p.nodes.begin() + v + 1, std::move(node));
  p.output += p.output >= v;
  return v + 1;
}

Sizes sizes_of(const Variant& v) {
  const Program& p = v.program;
  Sizes s;
  for (const Node& n : p.nodes) {
    if (const auto* e = std::get_if<Embed>(&n.op)) {
      s.n_embd = n.shape.dim;
      const auto* head = std::get_if<Linear>(&p.nodes[size_t(p.output)].op);
      s.tied = head && head->w == e->table;
    }
    if (std::get_if<Attention>(&n.op)) {
      const Shape q = p.shape(n.in[0]), k = p.shape(n.in[1]);
      s.n_head = q.heads, s.n_head_kv = k.heads, s.head_dim = q.dim;
    }
    if (std::get_if<Glu>(&n.op)) s.n_ff = n.shape.size();
    if (const auto* r = std::get_if<Rope>(&n.op)) s.rope_dims = r->dims;
  }
  s.n_vocab = p.shape(p.output).size();
  return s;
}

void set_key(Variant& v, const std::string& key, double value) {
  const std::string full = v.program.arch + "." + key;
  v.metadata.push_back({full, [=](GgufWriter& w) { w.set(full, float(value)); }});
}

std::string has_window(const Variant& v) {
  for (int l = 0; l < v.program.n_layer; ++l) {
    if (is_local(v.program, l)) return {};
  }
  return "no layer has a window";
}

void set_key_integer(Variant& v, const std::string& key, int64_t value) {
  const std::string full = v.program.arch + "." + key;
  v.metadata.push_back({full, [=](GgufWriter& w) { w.set(full, uint32_t(value)); }});
}

void drop_key(Variant& v, const std::string& key) { v.metadata.push_back({v.program.arch + "." + key, {}}); }

}  // namespace plumb::trace
