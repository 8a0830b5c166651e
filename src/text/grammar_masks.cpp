#include "text/grammar_masks.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/error.h"

namespace plumb {
namespace grammar {
namespace {

constexpr int64_t kMaxSteps = 100'000'000;  // through the trie, for one mask: about half a second
constexpr int64_t kMaxWork = 5'000'000;     // on new configurations, for one mask
constexpr int64_t kMaxBytes = 48 << 20;     // of what is remembered; then it is forgotten

void set(std::span<uint64_t> bits, int id) { bits[size_t(id) / 64] |= uint64_t(1) << (id % 64); }

}  // namespace

// Nodes [begin, end) in preorder, whose parents lie before begin or are met on the way.
void Masks::walk(int begin, int end, int configuration, std::span<uint64_t> bits,
                 std::vector<int>* end_nodes) {
  const std::span<const GrammarVocabulary::Node> nodes = vocabulary_.nodes();
  if (begin >= end || configuration == Machine::kDead) return;
  path_.resize(size_t(vocabulary_.depth()) + 1);
  path_[size_t(nodes[size_t(begin)].depth) - 1] = configuration;
  for (int n = begin; n < end;) {
    const GrammarVocabulary::Node& node = nodes[size_t(n)];
    --steps_;
    const int to = machine.next(path_[size_t(node.depth) - 1], node.byte);
    if (to == Machine::kDead) {
      n = node.after;
      continue;
    }
    path_[size_t(node.depth)] = to;
    for (int token : vocabulary_.tokens_at(n)) set(bits, token);
    if (end_nodes && machine.at_bottom(to)) end_nodes->push_back(n);
    ++n;
  }
  if (steps_ < 0) {
    throw Error({.code = "grammar.limit",
                 .expected = "a grammar that can be followed in bounded work",
                 .found = "one with too many ways to go on",
                 .where = {.key = "grammar"},
                 .remedy = "make alternatives begin differently"});
  }
}

const Masks::Local& Masks::local(int state) {
  const auto [it, fresh] = locals_.try_emplace(state);
  Local& l = it->second;
  if (!fresh) return l;
  std::vector<uint64_t> bits(size_t(vocabulary_.size() + 63) / 64);
  const int start = machine.closure({{state, Machine::kBottom}});
  try {
    walk(1, int(vocabulary_.nodes().size()), start, bits, &l.end_nodes);
  } catch (const Error&) {
    locals_.erase(it);
    throw;
  }
  size_t count = 0;
  for (uint64_t word : bits) count += size_t(std::popcount(word));
  if (count * 2 < bits.size()) {
    for (int id = 0; id < vocabulary_.size(); ++id) {
      if (is_allowed(bits, id)) l.few.push_back(id);
    }
  } else {
    l.bits = std::move(bits);
  }
  bytes_ += int64_t(sizeof(Local) + 64 + l.bits.size() * 8 + (l.few.size() + l.end_nodes.size()) * 4);
  return l;
}

void Masks::add_named(int state, std::span<uint64_t> bits) const {
  for (const Edge& e : network_.states[size_t(state)]) {
    if (e.take == Take::token && e.id < vocabulary_.size()) set(bits, e.id);
    if (e.take != Take::other_token) continue;
    for (int id = 0; id < vocabulary_.size(); ++id) {
      if (id != e.id && !vocabulary_.is_end(id)) set(bits, id);
    }
  }
}

void Masks::allowed(int configuration, std::span<uint64_t> bits) {
  machine.allow_work(kMaxWork);
  steps_ = kMaxSteps;
  const std::span<const Item> now = machine.items(configuration);
  const std::vector<Item> items(now.begin(), now.end());
  for (const Item& item : items) {
    add_named(item.state, bits);
    const Local& l = local(item.state);
    for (int id : l.few) set(bits, id);
    for (size_t i = 0; i < l.bits.size(); ++i) bits[i] |= l.bits[i];
    const std::span<const Item> below = machine.below(item.stack);
    if (l.end_nodes.empty() || below.empty()) continue;
    const int back = machine.closure({below.begin(), below.end()});
    for (int n : l.end_nodes) walk(n + 1, vocabulary_.nodes()[size_t(n)].after, back, bits, nullptr);
  }
}

void Masks::keep_short(int configuration, int left, std::span<uint64_t> bits) {
  for (size_t word = 0; word < bits.size(); ++word) {
    for (uint64_t rest = bits[word]; rest != 0; rest &= rest - 1) {
      const int id = int(word * 64) + std::countr_zero(rest);
      if (to_end(configuration, id) > left) bits[word] &= ~(rest & -rest);
    }
  }
}

int Masks::to_end(int configuration, int id) {
  if (vocabulary_.is_end(id) && machine.at_bottom(configuration)) return 0;
  return machine.to_end(accept(configuration, id));
}

int Masks::accept(int configuration, int id) {
  machine.allow_work(kMaxWork);
  const bool ends = vocabulary_.is_end(id);
  const int named = ends ? Machine::kDead : machine.next_token(configuration, id);
  const std::string_view text = vocabulary_.text(id);
  int spelled = text.empty() ? Machine::kDead : configuration;
  for (char c : text) spelled = machine.next(spelled, uint8_t(c));
  if (named == Machine::kDead) return spelled;
  if (spelled == Machine::kDead) return named;
  std::vector<Item> both;
  for (int c : {named, spelled}) both.insert(both.end(), machine.items(c).begin(), machine.items(c).end());
  return machine.closure(std::move(both), machine.at_bottom(named) || machine.at_bottom(spelled));
}

}  // namespace grammar

GrammarState::GrammarState(Grammar grammar, std::shared_ptr<const GrammarVocabulary> vocabulary)
    : grammar_(std::move(grammar)), vocabulary_(std::move(vocabulary)) {
  masks_ = std::make_shared<grammar::Masks>(grammar_.network(), *vocabulary_);
  masks_->machine.allow_work(grammar::kMaxWork);
  const grammar::Network& n = grammar_.network();
  configuration_ = masks_->machine.closure({{n.rules[size_t(n.root)].start, grammar::Machine::kBottom}});
}

// Forgets what was learnt once it has grown too large; copies of this state keep theirs.
void GrammarState::renew() {
  std::unique_lock lock(masks_->mutex);
  if (masks_->bytes() <= grammar::kMaxBytes) return;
  auto fresh = std::make_shared<grammar::Masks>(grammar_.network(), *vocabulary_);
  configuration_ = fresh->machine.import(masks_->machine, configuration_);
  lock.unlock();
  masks_ = std::move(fresh);
}

bool GrammarState::can_end() const {
  const std::lock_guard lock(masks_->mutex);
  return masks_->machine.at_bottom(configuration_);
}

int GrammarState::to_end() const {
  const std::lock_guard lock(masks_->mutex);
  return masks_->machine.to_end(configuration_);
}

int GrammarState::to_end(int id) const {
  const std::lock_guard lock(masks_->mutex);
  return masks_->to_end(configuration_, id);
}

std::span<const uint64_t> GrammarState::allowed_within(int left) {
  allowed();
  const std::lock_guard lock(masks_->mutex);
  masks_->keep_short(configuration_, left, bits_);
  return bits_;
}

std::span<const uint64_t> GrammarState::allowed() {
  renew();
  bits_.assign(size_t(vocabulary_->size() + 63) / 64, 0);
  if (!ended_) {
    const std::lock_guard lock(masks_->mutex);
    masks_->allowed(configuration_, bits_);
    if (masks_->machine.at_bottom(configuration_)) {
      for (int id : vocabulary_->ends()) grammar::set(bits_, id);
    }
  }
  if (std::all_of(bits_.begin(), bits_.end(), [](uint64_t w) { return w == 0; })) {
    throw Error({.code = "grammar.stuck",
                 .expected = "a token that continues the text as the grammar asks",
                 .found = ended_ ? "a text that has ended" : "none in this vocabulary",
                 .where = {.key = "grammar"}});
  }
  return bits_;
}

void GrammarState::mask(std::span<float> logits) {
  const std::span<const uint64_t> bits = allowed();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!is_allowed(bits, int(i))) logits[i] = -std::numeric_limits<float>::infinity();
  }
}

bool GrammarState::accept(int id) {
  if (ended_ || id < 0 || id >= vocabulary_->size()) return false;
  renew();
  const std::lock_guard lock(masks_->mutex);
  const int to = masks_->accept(configuration_, id);
  if (to != grammar::Machine::kDead) {
    configuration_ = to;
    return true;
  }
  const bool ends = vocabulary_->is_end(id);
  ended_ = ends && masks_->machine.at_bottom(configuration_);
  return ended_;
}

bool GrammarState::accept_text(std::string_view text) {
  if (ended_) return false;
  renew();
  const std::lock_guard lock(masks_->mutex);
  masks_->machine.allow_work(grammar::kMaxWork + int64_t(text.size()) * 1000);
  int to = configuration_;
  for (char c : text) to = masks_->machine.next(to, uint8_t(c));
  if (to == grammar::Machine::kDead) return false;
  configuration_ = to;
  return true;
}

}  // namespace plumb
