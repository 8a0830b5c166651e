// Fusion: a producer joins its only consumer when a rule allows it and nobody observes it.
#include "plan/fuse.h"

#include <algorithm>

#include "base/error.h"
#include "plan/split.h"

namespace plumb {
namespace {

bool same(const Rope& a, const Rope& b) {
  return a.style == b.style && a.dims == b.dims && a.freq_base == b.freq_base && a.factors == b.factors &&
         a.scaling == b.scaling && a.factor == b.factor && a.original_context == b.original_context &&
         a.attn_factor == b.attn_factor && a.beta_fast == b.beta_fast && a.beta_slow == b.beta_slow;
}

class Fuser {
 public:
  Fuser(const Program& p, const PlanOptions& options)
      : p_(p), options_(options), users_(p.nodes.size()), step_of_(p.nodes.size(), -1) {
    for (size_t i = 0; i < p.nodes.size(); ++i) {
      for (Value v : p.nodes[i].in) users_[size_t(v)].push_back(Value(i));
    }
    find_wanted();
  }

  std::vector<Step> run() {
    if (options_.observed.empty()) {
      need(p_.output);
    } else {
      for (Value v : options_.observed) need(v);
    }
    return std::move(steps_);
  }

  int tables() const { return int(ropes_.size()); }

 private:
  template <class O>
  const O* as(Value v) const {
    return v < 0 ? nullptr : std::get_if<O>(&p_.nodes[size_t(v)].op);
  }
  const Node& node(Value v) const { return p_.nodes[size_t(v)]; }
  Value in(Value v, int i = 0) const { return node(v).in[size_t(i)]; }
  bool observed(Value v) const { return options_.observed.count(v) > 0; }
  bool seen(Value v) const { return observed(v) || options_.taps.count(v) > 0; }
  bool done(Value v) const { return step_of_[size_t(v)] >= 0; }

  // v has one consumer and nobody looks at it, so it needs no buffer of its own.
  bool joins(Value v) const { return options_.fuse && users_[size_t(v)].size() == 1 && !seen(v); }

  // Rows after the last norm are computed for wanted tokens only: the norm and the output matrix.
  void find_wanted() {
    const Value logits = ungathered(p_, p_.output);
    if (options_.all_rows || !as<Linear>(logits) || observed(p_.output)) return;
    const Value norm = in(logits);
    if (as<RmsNorm>(norm) && users_[size_t(norm)].size() == 1 && !observed(norm))
      wanted_ = {norm, logits, p_.output};
  }
  bool wanted(Value v) const { return std::find(wanted_.begin(), wanted_.end(), v) != wanted_.end(); }

  // Emits the step of v after the steps of everything that it reads. An explicit stack: depth follows the
  // file's layers.
  void need(Value goal) {
    std::vector<Value> stack = {goal};
    while (!stack.empty()) {
      const Value v = stack.back();
      if (done(v)) {
        stack.pop_back();
        continue;
      }
      Step step = step_for(v);
      const size_t before = stack.size();
      for (Value r : reads(step)) {
        if (!done(r)) stack.push_back(r);
      }
      if (stack.size() > before) continue;
      stack.pop_back();
      emit(std::move(step));
    }
  }

  void emit(Step step) {
    for (Value v : step.values) {
      if (!done(v)) step_of_[size_t(v)] = int(steps_.size());
    }
    steps_.push_back(std::move(step));
  }

  std::vector<Value> reads(const Step& s) const {
    std::vector<Value> r;
    for (Value v : s.values) {
      for (Value i : node(v).in) {
        if (std::find(s.values.begin(), s.values.end(), i) == s.values.end()) r.push_back(i);
      }
    }
    return r;
  }

  Step step_for(Value v) {
    if (as<Embed>(v)) return embed(v, v);
    if (as<Scale>(v)) return scale(v);
    if (as<Linear>(v)) return linear(v);
    if (as<RmsNorm>(v)) return norm(v);
    if (as<Rope>(v)) return heads(v);
    if (as<Attention>(v)) return attention(v);
    if (as<Glu>(v)) return glu(v);
    if (const Slice* s = as<Slice>(v)) return {RowStep{.x = in(v), .first = s->first, .out = v}, {v}};
    if (as<Gather>(v)) return {GatherStep{in(v), v}, {v}, wanted(v)};
    PLUMB_CHECK(as<Add>(v));
    return add(v);
  }

  Step embed(Value v, Value out) {
    const double factor = v == out ? 1 : as<Scale>(out)->factor;
    Step s{EmbedStep{as<Embed>(v)->table, factor, out}, {v}};
    if (out != v) s.values.push_back(out);
    return s;
  }

  Step scale(Value v) {
    const Value x = in(v);
    if (as<Embed>(x) && joins(x)) return embed(x, v);
    return {RowStep{.x = x, .scale = as<Scale>(v)->factor, .out = v}, {v}};
  }

  LinearStep::Part part(Value v) const { return {as<Linear>(v)->w, as<Linear>(v)->bias, v}; }

  // All matrices of one input that no other step takes.
  Step linear(Value v) {
    LinearStep l{.x = in(v), .parts = {}};
    Step s{};
    for (Value u : users_[size_t(l.x)]) {
      const bool sibling =
          u == v || (options_.fuse && as<Linear>(u) && !done(u) && !taken(u) && wanted(u) == wanted(v));
      if (!sibling) continue;
      l.parts.push_back(part(u));
      s.values.push_back(u);
    }
    s.what = std::move(l);
    s.wanted = wanted(v);
    return s;
  }

  // Another step will compute this matrix: linear + add, or linear pair + glu. Not needed: nobody will.
  bool taken(Value v) const {
    if (!joins(v)) return false;
    const Value u = users_[size_t(v)][0];
    return joins_add(u, v) || is_glu_pair(u);
  }
  bool joins_add(Value u, Value v) const { return as<Add>(u) && in(u, 1) == v && as<Linear>(v) && joins(v); }
  bool is_glu_pair(Value u) const {
    if (!as<Glu>(u)) return false;
    const Value a = in(u, 0), b = in(u, 1);
    return as<Linear>(a) && as<Linear>(b) && joins(a) && joins(b) && in(a) == in(b);
  }

  Step glu(Value v) {
    const Value a = in(v, 0), b = in(v, 1);
    const Act act = as<Glu>(v)->act;
    if (!is_glu_pair(v)) return {GluStep{act, a, b, v}, {v}};
    return {LinearStep{.x = in(a), .parts = {part(a), part(b)}, .glu = v, .act = act}, {a, b, v}};
  }

  Step add(Value v) {
    const Value x = in(v, 0), y = in(v, 1);
    if (joins_add(v, y)) return {LinearStep{.x = in(y), .parts = {part(y)}, .residual = x, .sum = v}, {y, v}};
    RowStep r{.x = y, .residual = x, .out = v};
    Step s{};
    if (const RmsNorm* post = as<RmsNorm>(y); post && joins(y) && node(y).shape.heads == 1) {
      r.x = in(y), r.post = post->w, r.post_eps = post->eps;
      s.values.push_back(y);
    }
    s.values.push_back(v);
    append_norm(v, r, s);
    s.what = r;
    return s;
  }

  // The norm that follows an addition of rows, if any.
  void append_norm(Value sum, RowStep& r, Step& s) const {
    if (!options_.fuse) return;
    for (Value u : users_[size_t(sum)]) {
      const RmsNorm* norm = as<RmsNorm>(u);
      if (!norm || node(u).shape.heads != 1 || done(u)) continue;
      if (wanted(u) && !joins(sum)) continue;  // others need the sum of every row
      r.sum = sum, r.norm = norm->w, r.eps = norm->eps, r.out = u;
      s.values.push_back(u);
      s.wanted = wanted(u);
      return;
    }
  }

  Step norm(Value v) {
    const Value x = in(v);
    if (as<Add>(x) && !done(x)) {  // its step may compute this norm too
      Step s = add(x);
      if (std::find(s.values.begin(), s.values.end(), v) != s.values.end()) return s;
    }
    Step s{RowStep{.x = x, .norm = as<RmsNorm>(v)->w, .eps = as<RmsNorm>(v)->eps, .out = v}, {v}};
    s.wanted = wanted(v);
    return s;
  }

  int table(const Rope& rope) {
    for (size_t i = 0; i < ropes_.size(); ++i) {
      if (same(ropes_[i], rope)) return int(i);
    }
    ropes_.push_back(rope);
    emit({RopeTableStep{rope, int(ropes_.size()) - 1}, {}});
    return int(ropes_.size()) - 1;
  }

  // The chain norm -> rope that ends in v, as far as it joins; appends its nodes to s.
  HeadsStep::Part head_part(Value v, Step& s) {
    HeadsStep::Part part{.x = v, .out = v};
    if (done(v)) return part;
    if (const Rope* r = as<Rope>(v)) {
      part.table = table(*r), part.style = r->style, part.dims = r->dims;
      part.x = in(v);
      const RmsNorm* norm = as<RmsNorm>(part.x);
      if (norm && joins(part.x)) {
        s.values.push_back(part.x);
        part.norm = norm->w, part.eps = norm->eps, part.x = in(part.x);
      }
      s.values.push_back(v);
    }
    return part;
  }

  // A rope on its own, where nothing may be fused or no attention is needed.
  Step heads(Value v) {
    Step s{};
    HeadsStep h{.parts = {}, .layer = 0};
    h.parts.push_back(head_part(v, s));
    s.what = std::move(h);
    return s;
  }

  Step attention(Value v) {
    const Attention& a = *as<Attention>(v);
    PLUMB_CHECK(a.map == HeadMap::grouped);
    if (!heads_done_.count(v)) {
      Step s{};
      HeadsStep h{.parts = {}, .layer = a.layer};
      for (int i = 0; i < 3; ++i) {
        const Value x = in(v, i);
        if (i == 0 && (!options_.fuse || !as<Rope>(x) || done(x))) continue;  // q has nothing to do here
        HeadsStep::Part part = options_.fuse ? head_part(x, s) : HeadsStep::Part{.x = x, .out = x};
        if (i > 0) part.store = i == 1 ? HeadsStep::Store::k : HeadsStep::Store::v;
        h.parts.push_back(part);
      }
      // Everything that the heads read must be there first; then this is asked again.
      s.values.push_back(v);
      std::vector<Value> missing;
      for (Value r : head_reads(h)) {
        if (!done(r)) missing.push_back(r);
      }
      if (!missing.empty()) {
        Step wait = s;
        wait.what = std::move(h);
        return wait;
      }
      s.values.pop_back();
      s.what = std::move(h);
      heads_done_.insert(v);
      emit(std::move(s));
    }
    return {AttentionStep{a, in(v, 0), in(v, 1), v}, {v}};
  }

  static std::vector<Value> head_reads(const HeadsStep& h) {
    std::vector<Value> r;
    for (const HeadsStep::Part& part : h.parts) r.push_back(part.x);
    return r;
  }

  const Program& p_;
  const PlanOptions& options_;
  std::vector<std::vector<Value>> users_;
  std::vector<int> step_of_;
  std::vector<Value> wanted_;
  std::vector<Rope> ropes_;
  std::set<Value> heads_done_;
  std::vector<Step> steps_;
};

}  // namespace

std::vector<Step> fuse(const Program& program, const PlanOptions& options, int* n_tables) {
  Fuser fuser(program, options);
  std::vector<Step> steps = fuser.run();
  *n_tables = fuser.tables();
  return steps;
}

}  // namespace plumb
