// How far it is to the end of a rule: Dijkstra's search from the ends backwards, where an edge that takes a
// whole rule costs what that rule costs at least, which is known once its start has been reached (Knuth 1977,
// "A generalization of Dijkstra's algorithm").
#include <algorithm>
#include <functional>
#include <queue>

#include "text/grammar_network.h"

namespace plumb::grammar {
namespace {

class Distances {
 public:
  explicit Distances(const Network& n) : n_(n), to_end_(n.states.size(), kNever), into_(n.states.size()) {
    calls_.resize(n.rules.size()), rules_at_.resize(n.states.size());
    for (size_t s = 0; s < n.states.size(); ++s) {
      for (const Edge& e : n.states[s]) {
        into_[size_t(e.to)].push_back({int(s), e.take == Take::rule ? e.id : -1, e.take != Take::nothing});
        if (e.take == Take::rule) calls_[size_t(e.id)].push_back({int(s), e.to});
      }
    }
    for (size_t r = 0; r < n.rules.size(); ++r) {
      rules_at_[size_t(n.rules[r].start)].push_back(int(r));
      queue_.push({0, n.rules[r].end});
    }
  }

  std::vector<int> find() {
    while (!queue_.empty()) {
      const auto [distance, s] = queue_.top();
      queue_.pop();
      if (to_end_[size_t(s)] <= distance) continue;
      to_end_[size_t(s)] = distance;
      for (const Way& way : into_[size_t(s)]) {
        if (way.rule < 0) {
          reach(way.from, distance, way.takes ? 1 : 0);
        } else {
          reach(way.from, distance, to_end_[size_t(n_.rules[size_t(way.rule)].start)]);
        }
      }
      for (int rule : rules_at_[size_t(s)]) {
        for (const auto& [from, to] : calls_[size_t(rule)]) reach(from, to_end_[size_t(to)], distance);
      }
    }
    return std::move(to_end_);
  }

 private:
  struct Way {
    int from, rule;
    bool takes;
  };

  void reach(int state, int a, int b) {
    if (a < kNever && b < kNever) queue_.push({std::min(a + b, kNever - 1), state});
  }

  const Network& n_;
  std::vector<int> to_end_;
  std::vector<std::vector<Way>> into_;                   // edges backwards
  std::vector<std::vector<std::pair<int, int>>> calls_;  // of a rule: from and to
  std::vector<std::vector<int>> rules_at_;               // that start at a state
  std::priority_queue<std::pair<int, int>, std::vector<std::pair<int, int>>, std::greater<>> queue_;
};

}  // namespace

std::vector<int> distances_to_end(const Network& network) { return Distances(network).find(); }

}  // namespace plumb::grammar
