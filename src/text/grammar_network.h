// A grammar as a network of states: edges take a byte out of a range, a token, or the whole of another rule.
// Characters are spelled out as UTF-8, so that a token may begin or end inside one.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace plumb::grammar {

enum class Take : uint8_t { nothing, bytes, rule, token, other_token };

struct Edge {
  Take take;
  uint8_t low = 0, high = 0;  // of bytes
  int id = 0;                 // of a rule or token
  int to = 0;
};

struct Place {
  int line = 1, column = 1;
};

struct Rule {
  std::string name;
  Place place = {};
  int start = -1, end = -1;  // states; nothing leaves `end`
  bool nullable = false;
  int order = 0;  // a rule comes before those that it can begin with
};

struct Network {
  std::vector<std::vector<Edge>> states;
  std::vector<uint8_t> is_end;  // of some rule
  std::vector<int> tail;        // where edges that take nothing lead without a choice
  std::vector<int> to_end;      // fewest bytes and named tokens to the end of the state's rule, below kNever
  std::vector<Rule> rules;
  std::vector<int> by_order;  // rules
  int root = 0;
  uint8_t class_of[256] = {};  // bytes that no edge tells apart
  int classes = 0;
  std::vector<uint8_t> byte_of_class;

  int64_t edges = 0;

  /// Both count towards the limits; at most kMaxGrammarStates and kMaxGrammarEdges (Error "grammar.limit").
  int add_state();
  void add_edge(int from, const Edge& edge);

  /// Paths from -> to for the UTF-8 of the characters in the ranges, which are sorted and disjoint.
  void add_characters(int from, int to, const std::vector<std::pair<uint32_t, uint32_t>>& ranges);

  /// Once all rules stand: what is nullable, the order, byte classes. Throws Error "grammar.left_recursion"
  /// or "grammar.endless".
  void finish();
};

/// Distances grow no further behind kNever - 1; kNever: no end can be reached.
inline constexpr int kNever = 1 << 29;
/// Of each state: Network::to_end.
std::vector<int> distances_to_end(const Network& network);

[[noreturn]] void fail(const char* code, Place place, std::string expected, std::string found,
                       std::string remedy = {});

inline constexpr int64_t kMaxGrammarBytes = 256 << 10;  // of the source
inline constexpr int kMaxGrammarNesting = 128;          // groups
inline constexpr int kMaxGrammarRules = 20'000;
inline constexpr int kMaxGrammarRepetition = 2'000;  // of {m,n}
inline constexpr int64_t kMaxGrammarStates = 100'000;
inline constexpr int64_t kMaxGrammarEdges = 400'000;

}  // namespace plumb::grammar
