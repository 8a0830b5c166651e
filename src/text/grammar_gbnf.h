// GBNF text to a tree of rules, and the tree to a Network; see grammar.h.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "text/grammar_network.h"
#include "text/tokenizer.h"

namespace plumb::grammar {

struct Part {
  enum class Kind : uint8_t { characters, rule, token, other_token, sequence, choice, repeat };
  Kind kind = Kind::sequence;
  std::vector<std::pair<uint32_t, uint32_t>> ranges = {};  // of characters: sorted, disjoint
  std::vector<int> parts = {};  // of a sequence, a choice, or the one that is repeated
  int id = 0;                   // of a rule or token
  int least = 0, most = 0;      // of a repetition; -1: without end
};

struct Source {
  std::vector<Part> parts;
  std::vector<Rule> rules;
  std::vector<int> bodies;  // for each rule its part, -1 until it is defined
  int root = -1;
};

Source parse_gbnf(std::string_view source, const Tokenizer* tokenizer);

Network build_network(const Source& source);

}  // namespace plumb::grammar
