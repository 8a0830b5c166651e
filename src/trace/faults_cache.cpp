// H: the cache of keys and values, and what a step is fed.
#include "trace/edits.h"

namespace plumb::trace {
namespace {

Edit cache(std::function<void(WrongAttention&)> change) {
  return on<Attention>("*", [change](Attention& a) { change(a.wrong); });
}
Edit feed(std::function<void(WrongFeed&)> change) {
  return [=](Variant& v, double) -> std::string {
    change(v.program.feed);
    return {};
  };
}
Edit rope_in_steps(std::function<void(Rope&)> change) { return in_steps(on<Rope>("q_rope k_rope", change)); }

// Keys go into the cache as they are before the rotation; the prompt itself sees rotated ones.
std::string keys_stored_unrotated(Variant& v, double) {
  for (Node& n : v.program.nodes) {
    auto* a = std::get_if<Attention>(&n.op);
    if (!a) continue;
    n.in.push_back(v.program.nodes[size_t(n.in[1])].in[0]);
    a->wrong.stores_fourth = true;
  }
  return {};
}

}  // namespace

void add_cache_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_cache.inc"
  };
  all.insert(all.end(), faults.begin(), faults.end());
}

}  // namespace plumb::trace
