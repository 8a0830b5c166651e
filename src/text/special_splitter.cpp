// Matching special tokens; see special_splitter.h. One walk of a trie from every position collects the
// occurrences of rare tokens, which are then settled one by one. A token found too often is given up there,
// and searched for later, which is cheap because each takes much of the text away.
#include "text/special_splitter.h"

#include <algorithm>

#include "base/error.h"

namespace plumb {
namespace {

bool is_c_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

SpecialSplitter::SpecialSplitter(const Vocabulary& vocabulary) : vocabulary_(&vocabulary) {
  std::fill(std::begin(roots_), std::end(roots_), -1);
  for (int id = 0; id < vocabulary.size(); ++id) {
    if (!vocabulary.has(id, kControlToken | kUserDefinedToken | kUnknownToken)) continue;
    if (vocabulary.tokens[static_cast<size_t>(id)].empty()) continue;
    order_.push_back(id);
    any_user_defined_ = any_user_defined_ || !vocabulary.has(id, kControlToken | kUnknownToken);
  }
  auto text = [&](int id) { return vocabulary.tokens[static_cast<size_t>(id)]; };
  std::sort(order_.begin(), order_.end(), [&](int a, int b) {
    return text(a).size() != text(b).size() ? text(a).size() > text(b).size() : a < b;
  });
  for (size_t i = 0; i < order_.size(); ++i) insert(text(order_[i]), static_cast<int>(i));
}

void SpecialSplitter::insert(std::string_view text, int order) {
  int* link = &roots_[static_cast<uint8_t>(text[0])];
  int node = -1;
  for (char c : text) {
    const int parent = node;
    while (*link >= 0 && nodes_[static_cast<size_t>(*link)].byte != c)
      link = &nodes_[static_cast<size_t>(*link)].sibling;
    node = *link;
    if (node < 0) {
      node = *link = static_cast<int>(nodes_.size());
      nodes_.push_back({parent, -1, -1, -1, c, false});  // link is dead from here on
    }
    link = &nodes_[static_cast<size_t>(node)].child;
  }
  Node& last = nodes_[static_cast<size_t>(node)];
  if (last.order >= 0) return;
  last.order = order;
  last.always = !vocabulary_->has(order_[static_cast<size_t>(order)], kControlToken | kUnknownToken);
}

// Occurrences of the tokens that have at most `rare`; `count` becomes greater for the others.
std::vector<SpecialSplitter::Match> SpecialSplitter::rare_matches(std::string_view text, bool parse_special,
                                                                  uint32_t rare,
                                                                  std::vector<uint32_t>& count) const {
  std::vector<Match> matches;
  std::vector<int> open;  // once a token is given up: by node, how many tokens below are not
  const Node* nodes = nodes_.data();
  for (size_t begin = 0; begin < text.size(); ++begin) {
    int node = roots_[static_cast<uint8_t>(text.data()[begin])];
    for (size_t at = begin; node >= 0;) {
      if (!open.empty() && open[static_cast<size_t>(node)] == 0) break;
      const Node& n = nodes[node];
      if (may_match(n, parse_special)) {
        uint32_t& found = count[static_cast<size_t>(n.order)];
        if (found < rare) matches.push_back({static_cast<uint32_t>(n.order), static_cast<uint32_t>(begin)});
        if (found <= rare && ++found > rare) give_up(node, parse_special, open);
      }
      if (++at == text.size()) break;
      const char byte = text.data()[at];
      node = n.child;
      while (node >= 0 && nodes[node].byte != byte) node = nodes[node].sibling;
    }
  }
  std::erase_if(matches, [&](const Match& m) { return count[m.order] > rare; });
  std::sort(matches.begin(), matches.end(), [](const Match& a, const Match& b) {
    return a.order != b.order ? a.order < b.order : a.begin < b.begin;
  });
  return matches;
}

void SpecialSplitter::give_up(int node, bool parse_special, std::vector<int>& open) const {
  auto add_to_ancestors = [&](int from, int what) {
    for (int n = from; n >= 0; n = nodes_[static_cast<size_t>(n)].parent)
      open[static_cast<size_t>(n)] += what;
  };
  if (open.empty()) {
    open.resize(nodes_.size(), 0);
    for (size_t n = 0; n < nodes_.size(); ++n) {
      if (may_match(nodes_[n], parse_special)) add_to_ancestors(static_cast<int>(n), 1);
    }
  }
  add_to_ancestors(node, -1);
}

// Gives text[begin, ..) inside `plain` to the token; returns the stretch that remains to its right, or end().
SpecialSplitter::Plain::iterator SpecialSplitter::take(std::string_view text, int id, size_t begin,
                                                       Plain::iterator plain, Plain& plains,
                                                       std::vector<Fragment>& taken) const {
  const size_t end = begin + vocabulary_->tokens[static_cast<size_t>(id)].size();
  const size_t plain_begin = plain->first, plain_end = plain->second;
  size_t left = begin, right = end;
  if (vocabulary_->has(id, kStripLeft)) {
    while (left > plain_begin && is_c_space(text[left - 1])) --left;
  }
  if (vocabulary_->has(id, kStripRight)) {
    while (right < plain_end && is_c_space(text[right])) ++right;
  }
  taken.push_back({id, begin, end});
  if (left > plain_begin) {
    plain->second = left;
    ++plain;
  } else {
    plain = plains.erase(plain);
  }
  return right < plain_end ? plains.emplace_hint(plain, right, plain_end) : plains.end();
}

std::vector<Fragment> SpecialSplitter::split(std::string_view text, bool parse_special) const {
  if (text.empty()) return {};
  if (order_.empty() || (!parse_special && !any_user_defined_)) return {{-1, 0, text.size()}};
  PLUMB_CHECK(text.size() < UINT32_MAX);
  std::vector<uint32_t> count(order_.size(), 0);
  const auto rare = static_cast<uint32_t>(64 + text.size() / 256);
  const std::vector<Match> matches = rare_matches(text, parse_special, rare, count);

  Plain plains{{0, text.size()}};
  std::vector<Fragment> fragments;
  size_t next = 0;
  for (size_t order = 0; order < order_.size(); ++order) {
    const int id = order_[order];
    const std::string_view token = vocabulary_->tokens[static_cast<size_t>(id)];
    for (; next < matches.size() && matches[next].order == order; ++next) {
      const size_t begin = matches[next].begin;
      auto plain = plains.upper_bound(begin);
      if (plain == plains.begin() || begin + token.size() > (--plain)->second) continue;
      take(text, id, begin, plain, plains, fragments);
    }
    if (count[order] <= rare) continue;
    for (auto plain = plains.begin(); plain != plains.end();) {
      const size_t begin = text.substr(0, plain->second).find(token, plain->first);
      if (begin == std::string_view::npos) {
        ++plain;
        continue;
      }
      const size_t plain_end = plain->second;
      auto rest = take(text, id, begin, plain, plains, fragments);
      plain = rest != plains.end() ? rest : plains.lower_bound(plain_end);
    }
  }
  for (const auto& [begin, end] : plains) fragments.push_back({-1, begin, end});
  std::sort(fragments.begin(), fragments.end(),
            [](const Fragment& a, const Fragment& b) { return a.begin < b.begin; });
  return fragments;
}

}  // namespace plumb
