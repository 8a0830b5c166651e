// The automaton that runs a Network. Where a text stands is a configuration: a set of (state, stack), where
// stacks share their ends (Tomita's graph-structured stack, 1987): a stack is a set of pairs of a state to
// come back to and the stack below. Equal stacks and equal configurations have equal numbers, so that the
// step from a configuration by a byte is computed once and remembered.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar_network.h"

namespace plumb::grammar {

struct Item {  // of a configuration: a state that takes a byte or a token; of a stack: a state and what is
               // below
  int state, stack;
  auto operator<=>(const Item&) const = default;
};

class Machine {
 public:
  static constexpr int kDead = 0;    // the configuration from which nothing goes on
  static constexpr int kBottom = 0;  // the empty stack

  explicit Machine(const Network& network);

  /// The configuration of all that the items lead to without taking anything; `at_bottom` if something else
  /// has reached the bottom.
  int closure(std::vector<Item> items, bool at_bottom = false);

  int next(int configuration, uint8_t byte) {
    const size_t at = size_t(configuration) * size_t(network_.classes) + network_.class_of[byte];
    const int known = next_[at];
    return known >= 0 ? known : step(configuration, network_.class_of[byte]);
  }

  /// After a token that the configuration takes by name; kDead if it takes none.
  int next_token(int configuration, int id);

  std::span<const Item> items(int configuration) const { return configurations_.at(configuration); }
  std::span<const Item> below(int stack) const { return stacks_.at(stack); }
  bool at_bottom(int configuration) const { return at_bottom_[size_t(configuration)] != 0; }
  /// The fewest bytes and named tokens after which the text is complete; kNever from kDead.
  int to_end(int configuration) const { return to_end_[size_t(configuration)]; }

  /// The same configuration of another machine of this network.
  int import(const Machine& other, int configuration);

  int64_t bytes() const;  // of memory, about

  /// Steps may be taken up to this many, then Error "grammar.limit" comes.
  void allow_work(int64_t steps) { work_ = steps; }

 private:
  // Sets of items by number.
  class Sets {
   public:
    std::span<const Item> at(int set) const {
      return std::span(items_).subspan(begin_[size_t(set)], begin_[size_t(set) + 1] - begin_[size_t(set)]);
    }
    int count() const { return int(begin_.size()) - 1; }
    int64_t bytes() const { return int64_t(items_.size() * sizeof(Item) + begin_.size() * 56); }
    /// The set's number and whether it is new; `salt` tells apart equal sets of different kinds.
    std::pair<int, bool> number(std::span<const Item> items, uint8_t salt);

   private:
    std::vector<Item> items_;
    std::vector<size_t> begin_ = {0};
    std::vector<uint8_t> salt_;
    std::unordered_multimap<uint64_t, int> by_hash_;
  };

  int step(int configuration, int byte_class);
  int stack(std::span<const Item> items);
  int nearest_end(std::span<const Item> items) const;
  int configuration(std::span<const Item> items, bool at_bottom);

  const Network& network_;
  Sets stacks_, configurations_;
  std::vector<uint8_t> at_bottom_;
  std::vector<int> to_end_, to_bottom_;  // of configurations and of stacks
  std::vector<int> next_;                // [configuration, class], -1: not yet known
  int64_t work_ = 0;
};

}  // namespace plumb::grammar
