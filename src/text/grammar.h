// Text that must follow a grammar: which tokens may come next. Grammars are GBNF, llama.cpp's dialect of BNF
// (grammars/README.md of its repository); the compiler, the automaton and the masks are our own
// (docs/grammars.md).
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace plumb {

namespace grammar {
struct Network;
class Machine;
struct Masks;
}  // namespace grammar

/// A compiled grammar: immutable, cheap to copy, shared between threads.
class Grammar {
 public:
  /// Throws Error "grammar.syntax", "grammar.rule" (undefined, defined twice), "grammar.left_recursion",
  /// "grammar.endless" (a rule that no finite text fulfils) or "grammar.limit", each with line and column.
  /// `tokenizer` resolves tokens spelled <text>; without one only <[id]> is known.
  static Grammar parse(std::string_view source, const Tokenizer* tokenizer = nullptr);

  const grammar::Network& network() const { return *network_; }

 private:
  std::shared_ptr<const grammar::Network> network_;
};

/// The bytes of all tokens as a trie: made once per model, then shared by every grammar. Control tokens have
/// no text here: a grammar reaches them only by name, <token>.
class GrammarVocabulary {
 public:
  explicit GrammarVocabulary(const Tokenizer& tokenizer);

  int size() const { return int(text_begin_.size()) - 1; }  // number of ids
  std::string_view text(int id) const {
    return std::string_view(text_).substr(text_begin_[size_t(id)],
                                          text_begin_[size_t(id) + 1] - text_begin_[size_t(id)]);
  }
  std::span<const int> ends() const { return ends_; }  // end-of-generation ids, ascending
  bool is_end(int id) const { return std::binary_search(ends_.begin(), ends_.end(), id); }

  /// A node of the trie, in preorder; node 0 is the root.
  struct Node {
    uint8_t byte;
    int depth;
    int after;        // the first node behind its subtree
    int first_token;  // its tokens lie from here to the next node's
  };
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int> tokens_at(int node) const {
    const int begin = nodes_[size_t(node)].first_token;
    const size_t next = size_t(node) + 1;
    const int end = next < nodes_.size() ? nodes_[next].first_token : int(tokens_.size());
    return std::span(tokens_).subspan(size_t(begin), size_t(end - begin));
  }
  int depth() const { return depth_; }  // bytes of the longest token

 private:
  std::string text_;
  std::vector<uint32_t> text_begin_;
  std::vector<Node> nodes_;
  std::vector<int> tokens_;
  std::vector<int> ends_;
  int depth_ = 0;
};

/// Where a text stands in a grammar. Copies are cheap and go their own ways; what they learn about the
/// grammar they share, under a lock.
class GrammarState {
 public:
  GrammarState(Grammar grammar, std::shared_ptr<const GrammarVocabulary> vocabulary);

  /// One bit per id, set for each token that may come next: its bytes continue the text, or it ends the
  /// generation and the text is complete. Throws Error "grammar.stuck" when there is none and "grammar.limit"
  /// when the grammar is too ambiguous. Valid until the next call on this object.
  std::span<const uint64_t> allowed();

  /// Those of allowed() after which the text can be complete with `left` more tokens, where each byte is a
  /// token; none, if none is.
  std::span<const uint64_t> allowed_within(int left);

  /// Sets to minus infinity what is not allowed(). Ids beyond the vocabulary are never allowed.
  void mask(std::span<float> logits);

  /// Takes a token; false, and nothing changes, when it is not allowed.
  bool accept(int id);

  /// Takes text; false, and nothing changes, when it cannot continue.
  bool accept_text(std::string_view text);

  bool can_end() const;  // the text is complete as it stands

  /// The fewest bytes and named tokens that complete the text, as it stands or behind an allowed token.
  int to_end() const;
  int to_end(int id) const;
  bool ended() const { return ended_; }  // an end-of-generation token was taken

 private:
  void renew();

  Grammar grammar_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  std::shared_ptr<grammar::Masks> masks_;
  int configuration_ = 0;
  bool ended_ = false;
  std::vector<uint64_t> bits_;
};

inline bool is_allowed(std::span<const uint64_t> bits, int id) {
  return id >= 0 && size_t(id) / 64 < bits.size() && (bits[size_t(id) / 64] >> (id % 64) & 1) != 0;
}

}  // namespace plumb
