// The trie of a vocabulary, in preorder, so that a walk that leaves out subtrees is one pass through an
// array.
#include <algorithm>
#include <numeric>

#include "text/grammar.h"

namespace plumb {

GrammarVocabulary::GrammarVocabulary(const Tokenizer& tokenizer) {
  const int n = tokenizer.size();
  text_begin_.reserve(size_t(n) + 1);
  text_begin_.push_back(0);
  for (int id = 0; id < n; ++id) {
    const bool end = tokenizer.is_end_of_generation(id);
    if (end) ends_.push_back(id);
    if (!end) text_ += tokenizer.piece(id);  // "" for control tokens
    text_begin_.push_back(uint32_t(text_.size()));
  }
  tokens_.resize(size_t(n));
  std::iota(tokens_.begin(), tokens_.end(), 0);
  std::erase_if(tokens_, [&](int id) { return text(id).empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(), [&](int a, int b) { return text(a) < text(b); });
  nodes_.push_back({0, 0, 0, 0});
  std::vector<int> open = {0};  // the path to the last node
  std::string_view last;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view t = text(tokens_[i]);
    const size_t common =
        size_t(std::mismatch(last.begin(), last.end(), t.begin(), t.end()).first - last.begin());
    while (open.size() > common + 1) {
      nodes_[size_t(open.back())].after = int(nodes_.size());
      open.pop_back();
    }
    for (size_t d = common; d < t.size(); ++d) {
      open.push_back(int(nodes_.size()));
      nodes_.push_back({uint8_t(t[d]), int(d) + 1, 0, int(i)});
    }
    depth_ = std::max(depth_, int(t.size()));
    last = t;
  }
  for (int node : open) nodes_[size_t(node)].after = int(nodes_.size());
}

}  // namespace plumb
