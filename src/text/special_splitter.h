// Finds in a text the tokens that are matched whole before anything else: user-defined tokens always, control
// and unknown tokens when the caller asks for it. As in llama.cpp (tokenizer_st_partition), longer tokens go
// first, each taking its leftmost occurrences in what is left of the text; here in time linear in the text,
// however many tokens.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace plumb {

/// A stretch of the text that is one token, or (id < 0) plain text.
struct Fragment {
  int id;
  size_t begin, end;
};

class SpecialSplitter {
 public:
  explicit SpecialSplitter(const Vocabulary& vocabulary);

  /// The fragments in order. White space that a token swallows belongs to none.
  std::vector<Fragment> split(std::string_view text, bool parse_special) const;

 private:
  using Plain = std::map<size_t, size_t>;  // begin -> end of the stretches that no token has taken
  struct Node {
    int parent = -1, child = -1, sibling = -1;  // nodes
    int order = -1;                             // in order_, when a token ends here
    char byte = 0;
    bool always = false;  // matched without parse_special
  };
  struct Match {
    uint32_t order;
    uint32_t begin;
  };

  void insert(std::string_view text, int order);
  std::vector<Match> rare_matches(std::string_view text, bool parse_special, uint32_t rare,
                                  std::vector<uint32_t>& count) const;
  bool may_match(const Node& n, bool parse_special) const {
    return n.order >= 0 && (parse_special || n.always);
  }
  void give_up(int node, bool parse_special, std::vector<int>& open) const;
  Plain::iterator take(std::string_view text, int id, size_t begin, Plain::iterator plain, Plain& plains,
                       std::vector<Fragment>& taken) const;

  const Vocabulary* vocabulary_;
  std::vector<int> order_;  // ids, longest text first, then by id
  std::vector<Node> nodes_;
  int roots_[256];
  bool any_user_defined_ = false;
};

}  // namespace plumb
