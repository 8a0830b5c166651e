#include "text/grammar_network.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"

namespace plumb::grammar {

void fail(const char* code, Place place, std::string expected, std::string found, std::string remedy) {
  throw Error({.code = code,
               .expected = std::move(expected),
               .found = std::move(found),
               .where = {.key = fmt::format("grammar, line {}, column {}", place.line, place.column)},
               .remedy = std::move(remedy)});
}

int Network::add_state() {
  if (int64_t(states.size()) >= kMaxGrammarStates) {
    throw Error({.code = "grammar.limit",
                 .expected = fmt::format("a grammar of at most {} states", kMaxGrammarStates),
                 .found = "more",
                 .where = {.key = "grammar"},
                 .remedy = "make repetitions shorter"});
  }
  states.emplace_back();
  return int(states.size()) - 1;
}

void Network::add_edge(int from, const Edge& edge) {
  if (++edges > kMaxGrammarEdges) {
    throw Error({.code = "grammar.limit",
                 .expected = fmt::format("a grammar of at most {} edges", kMaxGrammarEdges),
                 .found = "more",
                 .where = {.key = "grammar"},
                 .remedy = "make repetitions shorter or character classes smaller"});
  }
  states[size_t(from)].push_back(edge);
}

namespace {

struct ByteRange {
  uint8_t low, high;
  auto operator<=>(const ByteRange&) const = default;
};
using Sequence = std::vector<ByteRange>;

// Splits characters of one UTF-8 length into runs whose bytes vary independently of each other.
void split(uint32_t low, uint32_t high, int length, std::vector<Sequence>& out) {
  for (int tail = 1; tail < length; ++tail) {
    const uint32_t mask = (1u << (6 * tail)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      split(low, low | mask, length, out);
      split((low | mask) + 1, high, length, out);
      return;
    }
    if ((high & mask) != mask) {
      split(low, (high & ~mask) - 1, length, out);
      split(high & ~mask, high, length, out);
      return;
    }
  }
  constexpr uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
  Sequence s;
  for (int i = 0; i < length; ++i) {
    const int shift = 6 * (length - 1 - i);
    const auto byte = [&](uint32_t c) {
      const uint32_t v = c >> shift;
      return uint8_t(i == 0 ? (length == 1 ? v : lead[length] | v) : 0x80 | (v & 0x3F));
    };
    s.push_back({byte(low), byte(high)});
  }
  out.push_back(std::move(s));
}

}  // namespace

void Network::add_characters(int from, int to, const std::vector<std::pair<uint32_t, uint32_t>>& ranges) {
  struct Band {
    uint32_t low, high;
    int length;
  };
  constexpr Band bands[] = {
      {0, 0x7F, 1}, {0x80, 0x7FF, 2}, {0x800, 0xD7FF, 3}, {0xE000, 0xFFFF, 3}, {0x10000, 0x10FFFF, 4}};
  std::vector<Sequence> sequences;
  for (const auto& [low, high] : ranges) {
    for (const Band& b : bands) {
      if (low <= b.high && high >= b.low)
        split(std::max(low, b.low), std::min(high, b.high), b.length, sequences);
    }
  }
  std::map<std::pair<ByteRange, int>, int> shared;  // from a byte and what follows to a state
  for (const Sequence& s : sequences) {
    int next = to;
    for (size_t i = s.size() - 1; i > 0; --i) {
      const auto [it, fresh] = shared.try_emplace({s[i], next}, 0);
      if (fresh) {
        it->second = add_state();
        add_edge(it->second, {.take = Take::bytes, .low = s[i].low, .high = s[i].high, .to = next});
      }
      next = it->second;
    }
    add_edge(from, {.take = Take::bytes, .low = s[0].low, .high = s[0].high, .to = next});
  }
}

namespace {

// The rules that a rule can begin with.
std::vector<int> first_rules(const Network& n, int rule, std::vector<int>& seen_by) {
  std::vector<int> work = {n.rules[size_t(rule)].start}, out;
  seen_by[size_t(work[0])] = rule;
  for (size_t i = 0; i < work.size(); ++i) {
    for (const Edge& e : n.states[size_t(work[i])]) {
      if (e.take == Take::rule) out.push_back(e.id);
      const bool passes = e.take == Take::nothing || (e.take == Take::rule && n.rules[size_t(e.id)].nullable);
      if (!passes || seen_by[size_t(e.to)] == rule) continue;
      seen_by[size_t(e.to)] = rule;
      work.push_back(e.to);
    }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

[[noreturn]] void refuse_left_recursion(const Network& n, const std::vector<int>& path, int again) {
  const auto begin = std::find(path.begin(), path.end(), again);
  std::string found;
  for (auto it = begin; it != path.end() && it - begin < 8; ++it) found += n.rules[size_t(*it)].name + " -> ";
  const Rule& rule = n.rules[size_t(again)];
  fail("grammar.left_recursion", rule.place,
       "rules that take a character before they come back to themselves",
       fmt::format("{}{}", found, rule.name), "put the recursion last, or use * or +");
}

// Depth-first, with an explicit stack: callers before those that they begin with.
void order_rules(Network& n) {
  enum : uint8_t { fresh, open, closed };
  std::vector<uint8_t> mark(n.rules.size(), fresh);
  std::vector<int> seen_by(n.states.size(), -1), path;
  struct Frame {
    std::vector<int> next;
    size_t at;
  };
  std::vector<Frame> stack;
  for (size_t start = 0; start < n.rules.size(); ++start) {
    if (mark[start] != fresh) continue;
    path = {int(start)};
    mark[start] = open;
    stack.push_back({first_rules(n, int(start), seen_by), 0});
    while (!stack.empty()) {
      Frame& f = stack.back();
      if (f.at == f.next.size()) {
        mark[size_t(path.back())] = closed;
        n.by_order.push_back(path.back());
        path.pop_back();
        stack.pop_back();
        continue;
      }
      const int r = f.next[f.at++];
      if (mark[size_t(r)] == open) refuse_left_recursion(n, path, r);
      if (mark[size_t(r)] == closed) continue;
      mark[size_t(r)] = open;
      path.push_back(r);
      stack.push_back({first_rules(n, r, seen_by), 0});
    }
  }
  std::reverse(n.by_order.begin(), n.by_order.end());
  for (size_t i = 0; i < n.by_order.size(); ++i) n.rules[size_t(n.by_order[i])].order = int(i);
}

void find_classes(Network& n) {
  bool starts[257] = {true};
  for (const auto& edges : n.states) {
    for (const Edge& e : edges) {
      if (e.take == Take::bytes) starts[e.low] = starts[e.high + 1] = true;
    }
  }
  for (int b = 0; b < 256; ++b) {
    if (starts[b]) {
      n.byte_of_class.push_back(uint8_t(b));
      ++n.classes;
    }
    n.class_of[b] = uint8_t(n.classes - 1);
  }
}

}  // namespace

void Network::finish() {
  is_end.assign(states.size(), 0);
  for (const Rule& r : rules) is_end[size_t(r.end)] = 1;
  to_end = distances_to_end(*this);
  for (Rule& rule : rules) {
    const int length = to_end[size_t(rule.start)];
    if (length == kNever) {
      fail("grammar.endless", rule.place, "a rule that some finite text fulfils",
           fmt::format("{}, which never ends", rule.name), "give it an alternative without itself");
    }
    rule.nullable = length == 0;
  }
  order_rules(*this);
  find_classes(*this);
  tail.resize(states.size());
  for (size_t s = 0; s < states.size(); ++s) {
    int at = int(s);
    for (size_t steps = 0; steps < 64; ++steps) {  // a cycle of such edges ends here too
      const std::vector<Edge>& out = states[size_t(at)];
      if (out.size() != 1 || out[0].take != Take::nothing) break;
      at = out[0].to;
    }
    tail[s] = at;
  }
}

}  // namespace plumb::grammar
