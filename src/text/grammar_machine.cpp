#include "text/grammar_machine.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace plumb::grammar {

Machine::Machine(const Network& network) : network_(network) {
  stack({});  // kBottom
  to_bottom_[kBottom] = 0;
  configuration({}, false);  // kDead
}

std::pair<int, bool> Machine::Sets::number(std::span<const Item> items, uint8_t salt) {
  uint64_t hash = 0x9E3779B97F4A7C15u ^ salt;
  for (const Item& i : items) {
    hash ^= uint64_t(uint32_t(i.state)) << 32 | uint32_t(i.stack);
    hash *= 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
  }
  const auto [first, last] = by_hash_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    const std::span<const Item> have = at(it->second);
    if (salt_[size_t(it->second)] == salt && std::equal(have.begin(), have.end(), items.begin(), items.end()))
      return {it->second, false};
  }
  const int set = count();
  items_.insert(items_.end(), items.begin(), items.end());
  begin_.push_back(items_.size());
  salt_.push_back(salt);
  by_hash_.emplace(hash, set);
  return {set, true};
}

int Machine::configuration(std::span<const Item> items, bool at_bottom) {
  const auto [number, fresh] = configurations_.number(items, at_bottom ? 1 : 0);
  if (fresh) {
    at_bottom_.push_back(at_bottom ? 1 : 0);
    to_end_.push_back(at_bottom ? 0 : nearest_end(items));
    next_.resize(next_.size() + size_t(network_.classes), -1);
  }
  return number;
}

int Machine::stack(std::span<const Item> items) {
  const auto [number, fresh] = stacks_.number(items, 0);
  if (fresh) to_bottom_.push_back(nearest_end(items));
  return number;
}

int Machine::nearest_end(std::span<const Item> items) const {
  int nearest = kNever;
  for (const Item& i : items)
    nearest = std::min(nearest, network_.to_end[size_t(i.state)] + to_bottom_[size_t(i.stack)]);
  return nearest;
}

// A rule that can take nothing is stepped over where it is called, and rules are entered in their order,
// callers first: then every caller of a rule at this place is known when its stack is made (nothing is
// left-recursive).
int Machine::closure(std::vector<Item> start, bool bottom) {
  std::vector<Item> seen, out;
  std::map<std::pair<int, int>, std::vector<Item>> calls;  // by order and rule: where to come back to
  std::unordered_map<uint64_t, bool> known;
  const auto reach = [&](int state, int stack) {
    const int at = network_.tail[size_t(state)];
    if (known.try_emplace(uint64_t(uint32_t(at)) << 32 | uint32_t(stack), true).second)
      seen.push_back({at, stack});
  };
  for (const Item& i : start) reach(i.state, i.stack);
  while (true) {
    while (!seen.empty()) {
      const Item item = seen.back();
      seen.pop_back();
      bool takes = false;
      if (network_.is_end[size_t(item.state)]) {
        if (item.stack == kBottom) bottom = true;
        for (const Item& back : below(item.stack)) reach(back.state, back.stack);
        work_ -= int64_t(below(item.stack).size());
      }
      for (const Edge& e : network_.states[size_t(item.state)]) {
        --work_;
        if (e.take == Take::nothing) {
          reach(e.to, item.stack);
        } else if (e.take != Take::rule) {
          takes = true;
        } else {
          const Rule& rule = network_.rules[size_t(e.id)];
          const int to = network_.tail[size_t(e.to)];
          if (rule.nullable) reach(to, item.stack);
          if (network_.is_end[size_t(to)]) {  // the last thing of its rule needs no way back
            reach(rule.start, item.stack);
          } else {
            calls[{rule.order, e.id}].push_back({to, item.stack});
          }
        }
      }
      if (takes) out.push_back(item);
      if (work_ < 0) {
        throw Error({.code = "grammar.limit",
                     .expected = "a grammar that can be followed in bounded work",
                     .found = "one with too many ways to read the text",
                     .where = {.key = "grammar"},
                     .remedy = "make alternatives begin differently"});
      }
    }
    if (calls.empty()) break;
    auto first = calls.extract(calls.begin());
    std::vector<Item>& back = first.mapped();
    std::sort(back.begin(), back.end());
    back.erase(std::unique(back.begin(), back.end()), back.end());
    reach(network_.rules[size_t(first.key().second)].start, stack(back));
  }
  std::sort(out.begin(), out.end());
  return configuration(out, bottom);
}

int Machine::step(int from, int byte_class) {
  const uint8_t byte = network_.byte_of_class[size_t(byte_class)];
  std::vector<Item> to;
  for (const Item& i : items(from)) {
    for (const Edge& e : network_.states[size_t(i.state)]) {
      if (e.take == Take::bytes && e.low <= byte && byte <= e.high) to.push_back({e.to, i.stack});
    }
    work_ -= int64_t(network_.states[size_t(i.state)].size());
  }
  const int result = to.empty() ? kDead : closure(std::move(to));
  next_[size_t(from) * size_t(network_.classes) + size_t(byte_class)] = result;
  return result;
}

int Machine::next_token(int from, int id) {
  std::vector<Item> to;
  for (const Item& i : items(from)) {
    for (const Edge& e : network_.states[size_t(i.state)]) {
      if ((e.take == Take::token && e.id == id) || (e.take == Take::other_token && e.id != id))
        to.push_back({e.to, i.stack});
    }
  }
  return to.empty() ? kDead : closure(std::move(to));
}

// A stack's number is above those of the stacks below it, in either machine.
int Machine::import(const Machine& other, int from) {
  std::vector<int> renamed(size_t(other.stacks_.count()), -1);
  std::vector<uint8_t> wanted(renamed.size());
  for (const Item& i : other.items(from)) wanted[size_t(i.stack)] = 1;
  for (size_t s = wanted.size(); s-- > 0;) {
    if (!wanted[s]) continue;
    for (const Item& i : other.below(int(s))) wanted[size_t(i.stack)] = 1;
  }
  std::vector<Item> items;
  const auto rename = [&](std::span<const Item> set) {
    items.assign(set.begin(), set.end());
    for (Item& i : items) i.stack = renamed[size_t(i.stack)];
    std::sort(items.begin(), items.end());
  };
  for (size_t s = 0; s < wanted.size(); ++s) {
    if (!wanted[s]) continue;
    rename(other.below(int(s)));
    renamed[s] = stack(items);
  }
  rename(other.items(from));
  return configuration(items, other.at_bottom(from));
}

int64_t Machine::bytes() const {
  return stacks_.bytes() + configurations_.bytes() + int64_t(next_.size() * sizeof(int));
}

}  // namespace plumb::grammar
