// Which tokens a configuration allows. What a state alone decides, whatever stack it stands on, is found once
// by walking the vocabulary's trie and kept; only tokens that go on behind the end of the state's rule are
// followed on the real stack (the split is that of XGrammar, Dong et al. 2024, arXiv:2411.15100, made
// lazily).
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar.h"
#include "text/grammar_machine.h"

namespace plumb::grammar {

struct Masks {
  Masks(const Network& network, const GrammarVocabulary& vocabulary)
      : machine(network), network_(network), vocabulary_(vocabulary) {}

  std::mutex mutex;
  Machine machine;

  /// Sets the bits of the tokens whose bytes or name continue the configuration.
  void allowed(int configuration, std::span<uint64_t> bits);

  /// Clears the bits of tokens after which the text cannot be complete within `left` bytes and named tokens.
  void keep_short(int configuration, int left, std::span<uint64_t> bits);

  /// The configuration after the token; Machine::kDead where it is not allowed.
  int accept(int configuration, int id);

  /// The fewest bytes and named tokens that complete the text behind the token.
  int to_end(int configuration, int id);

  int64_t bytes() const { return machine.bytes() + bytes_; }

 private:
  // Of one state: the tokens allowed while its rule lasts, and the nodes of the trie where the rule may end.
  struct Local {
    std::vector<int> few;        // tokens, where they are few
    std::vector<uint64_t> bits;  // else
    std::vector<int> end_nodes;
  };

  const Local& local(int state);
  void walk(int begin, int end, int configuration, std::span<uint64_t> bits, std::vector<int>* end_nodes);
  void add_named(int state, std::span<uint64_t> bits) const;

  const Network& network_;
  const GrammarVocabulary& vocabulary_;
  std::unordered_map<int, Local> locals_;
  std::vector<int> path_;  // the configuration at each depth of the walk
  int64_t steps_ = 0;      // left to this call
  int64_t bytes_ = 0;
};

}  // namespace plumb::grammar
