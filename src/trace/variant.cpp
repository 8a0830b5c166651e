#include "trace/variant.h"

#include <algorithm>
#include <numeric>

#include "base/cancel.h"
#include "base/error.h"
#include "trace/inner.h"

namespace plumb::trace {
namespace {

// What of the Program has to be computed.
struct Needs {
  std::vector<bool> nodes, shown, inner, given;
  Value until = -1;
};

Needs find_needs(const Program& p, const VariantRun& run) {
  const size_t n = p.nodes.size();
  Needs needs{std::vector<bool>(n), std::vector<bool>(n), std::vector<bool>(n), std::vector<bool>(n)};
  for (const std::string& name : run.values) {
    Value v = p.find(name);
    if (v >= 0) {
      needs.shown[size_t(v)] = true;
    } else {
      const auto inner = inner_value(name);
      if (inner) v = p.find(inner->attention);
      if (v < 0) continue;
      needs.inner[size_t(v)] = true;
    }
    needs.nodes[size_t(v)] = true;
    needs.until = std::max(needs.until, v);
  }
  for (const auto& [name, rows] : run.given) {
    const Value v = p.find(name);  // which a fault may have given another shape
    if (v >= 0 && rows.size() == run.tokens.size() * size_t(p.shape(v).size())) needs.given[size_t(v)] = true;
  }
  for (Value v = needs.until; v >= 0; --v) {
    const bool taken = needs.given[size_t(v)] && !(run.replay && needs.shown[size_t(v)]);
    if (!needs.nodes[size_t(v)] || taken) continue;
    for (Value in : p.nodes[size_t(v)].in) needs.nodes[size_t(in)] = true;
  }
  return needs;
}

Arithmetic joined(const Arithmetic& profile, const Arithmetic& fault) {
  const auto one = [](Rounded a, Rounded b) { return b == Rounded::none ? a : b; };
  return {one(profile.values, fault.values), one(profile.inputs, fault.inputs),
          one(profile.cache, fault.cache), profile.sums_from_end || fault.sums_from_end};
}

template <class T>
class Runs {
 public:
  Runs(const Variant& variant, Pool& pool, const VariantRun& run,
       const std::function<void(const VariantRows&)>& see)
      : p_(variant.program),
        run_(run),
        see_(see),
        needs_(find_needs(p_, run)),
        reference_(p_, pool, run.decoded) {
    reference_.set_arithmetic(joined(run.profile, variant.arithmetic));
  }

  void all() {
    if (needs_.until < 0) return;
    std::vector<int> calls = run_.calls;
    if (calls.empty()) calls = {int(run_.tokens.size())};
    PLUMB_CHECK(std::accumulate(calls.begin(), calls.end(), size_t(0)) == run_.tokens.size());
    typename Reference<T>::Task task{.until = needs_.until};
    task.needed = needs_.nodes, task.inner_of = needs_.inner, task.last_logits_only = run_.last_logits_only;
    task.see = [&](Value v, std::span<const T> rows) { node(v, rows); };
    task.see_inner = [&](Value v, Inner inner, int64_t dim, std::span<const T> rows) {
      const std::string name = inner_name(p_.nodes[size_t(v)].name, inner);
      if (std::find(run_.values.begin(), run_.values.end(), name) == run_.values.end()) return;
      show(name, p_.shape(p_.nodes[size_t(v)].in[0]).heads, dim, rows);
    };
    if (!run_.given.empty()) {
      task.give = [&](Value v, std::span<T> rows) {
        return !(run_.replay && needs_.shown[size_t(v)]) && give(v, rows);
      };
    }
    if (run_.replay) task.replace = [&](Value v, std::span<T> rows) { give(v, rows); };
    for (int count : calls) {
      if (count <= 0) continue;
      count_ = count;
      reference_.run(std::span(run_.tokens).subspan(size_t(first_), size_t(count)), task);
      first_ += count, ++call_;
    }
  }

 private:
  void node(Value v, std::span<const T> rows) {
    stop_if(run_.cancel);
    const Shape shape = p_.shape(v);
    if (needs_.shown[size_t(v)]) show(p_.nodes[size_t(v)].name, shape.heads, shape.dim, rows);
  }

  void show(const std::string& name, int heads, int64_t dim, std::span<const T> rows) {
    wide_.assign(rows.begin(), rows.end());
    see_({name, call_, first_, count_, heads, dim, wide_});
  }

  bool give(Value v, std::span<T> rows) {
    if (!needs_.given[size_t(v)]) return false;
    const std::vector<double>& all = run_.given.at(p_.nodes[size_t(v)].name);
    const size_t size = size_t(p_.shape(v).size());
    std::copy_n(all.begin() + int64_t(size_t(first_) * size), rows.size(), rows.begin());
    return true;
  }

  const Program& p_;
  const VariantRun& run_;
  const std::function<void(const VariantRows&)>& see_;
  Needs needs_;
  Reference<T> reference_;
  std::vector<double> wide_;
  int64_t first_ = 0;
  int call_ = 0, count_ = 0;
};

}  // namespace

Variant right_variant(const Model& model) {
  Variant v;
  v.file = &model.file();
  v.program = model.program();
  return v;
}

void run_variant(const Variant& variant, Pool& pool, const VariantRun& run,
                 const std::function<void(const VariantRows&)>& see) {
  if (run.f64) {
    Runs<double>(variant, pool, run, see).all();
  } else {
    Runs<float>(variant, pool, run, see).all();
  }
}

}  // namespace plumb::trace
