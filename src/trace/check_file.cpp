// Tests that compare a record with what the model's file is like: token ids, how strongly each matrix
// amplifies its input, and what a correct run of this very file looks like.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "trace/check.h"
#include "trace/recorder.h"

namespace plumb::trace {
namespace {

using Outcome = Finding::Outcome;
using Sizes = std::map<std::string, double>;  // rms of a value over all tokens

constexpr size_t kTokens = 32;  // of our own run

Sizes sizes_of(const Rows& rows) {
  Sizes sizes;
  std::map<std::string, std::pair<double, int64_t>> sums;
  for (const Record& r : rows.trace().records()) {
    if (r.last || r.step > 0) continue;
    if (!r.full()) {
      if (r.stats[Stat::rms]) sizes.emplace(r.name(), r.stats[Stat::rms]->value);
      continue;
    }
    auto& [squares, n] = sums[r.name()];
    for (int64_t t = 0; t < r.tokens; ++t) {
      for (double x : rows.row({&r, t})) squares += x * x, ++n;
    }
  }
  for (const auto& [value, sum] : sums)
    sizes[value] = std::sqrt(sum.first / double(std::max<int64_t>(sum.second, 1)));
  return sizes;
}

// Ours of the same tokens, or of a short text where theirs are unknown.
Sizes own_sizes(const Model& model, const Trace& theirs) {
  std::vector<int> tokens = theirs.header().tokens;
  tokens.resize(std::min(tokens.size(), kTokens));
  if (tokens.empty()) tokens = model.tokenizer().encode("Hello world, this is a test of the model.\n");
  const TemporaryFolder scratch;
  RunRequest request{.tokens = tokens, .level = Level::stats, .path = scratch.path() + "/ours.trace"};
  request.durable = false, request.options.arith = Arith::ref32;
  record_run(model, request);
  const Trace ours = Trace::open(request.path);
  return sizes_of(Rows(ours));
}

struct Product {
  std::string value, in;
};

std::vector<Product> products_of(const Program& p) {
  std::vector<Product> list;
  for (const Node& node : p.nodes) {
    const auto* linear = std::get_if<Linear>(&node.op);
    if (linear && linear->bias < 0) list.push_back({node.name, p.nodes[size_t(node.in[0])].name});
  }
  return list;
}

// rms(W x) / rms(x) theirs over ours: 1 for a correct product of whatever input. A matrix read in a wrong
// order acts like a random one, whose gain is that of rms(W) sqrt(n) for every input.
void alignment(const Program& p, const Sizes& theirs, const Sizes& ours, std::vector<Finding>& out) {
  int places = 0, broken = 0;
  double worst = 0;
  std::string first, text;
  const auto gain = [](const Sizes& s, const Product& m) {
    const auto y = s.find(m.value), x = s.find(m.in);
    return y == s.end() || x == s.end() || x->second <= 0 || y->second <= 0 ? 0 : y->second / x->second;
  };
  for (const Product& m : products_of(p)) {
    const double a = gain(theirs, m), b = gain(ours, m);
    if (a == 0 || b == 0 || !std::isfinite(a)) continue;
    ++places;
    const double off = std::abs(std::log(a / b));
    worst = std::max(worst, off);
    if (off < std::log(1.5)) continue;
    if (broken++ == 0) first = m.value, text = fmt::format("{:.4g} there, {:.4g} of a correct run", a, b);
  }
  if (places == 0) return;
  if (broken == 0)
    out.push_back({"alignment", Outcome::holds, "",
                   fmt::format("{} products amplify as in a correct run, within {:.1f} %", places,
                               100 * std::expm1(worst))});
  else
    out.push_back({"alignment", Outcome::violated, first,
                   fmt::format("rms(W x) / rms(x) is {}; so in {} of {} products", text, broken, places)});
}

void normality(const Program& p, const Sizes& theirs, const Sizes& ours, std::vector<Finding>& out) {
  const std::string first = "blk.0.ffn_out", last = fmt::format("blk.{}.ffn_out", p.n_layer - 1);
  const auto growth = [&](const Sizes& s) {
    const auto a = s.find(first), b = s.find(last);
    return a == s.end() || b == s.end() || a->second <= 0 ? 0 : b->second / a->second;
  };
  const double right = growth(ours), there = growth(theirs);
  if (right == 0 || p.n_layer < 2) return;
  const std::string text =
      fmt::format("the stream's rms grows {:.3g} times from the first layer to the last", right);
  if (there == 0)
    out.push_back({"normality", Outcome::note, last, text + " in a correct run of this file"});
  else
    out.push_back({"normality",
                   std::abs(std::log(there / right)) < std::log(2) ? Outcome::holds : Outcome::violated, last,
                   fmt::format("{} in a correct run of this file, {:.3g} times there", text, there)});
}

}  // namespace

void check_tokens(const Trace& theirs, const Model& model, std::vector<Finding>& out) {
  const std::vector<int>& ids = theirs.header().tokens;
  if (ids.empty()) return;
  const auto violated = [&](std::string text) {
    out.push_back({"tokens", Outcome::violated, "input", std::move(text), true});
  };
  const size_t before = out.size();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= model.n_vocab())
      return violated(fmt::format("token {} is {}, but the vocabulary has {}", i, ids[i], model.n_vocab()));
  }
  const Tokenizer& t = model.tokenizer();
  const int64_t prompt = std::min<int64_t>(theirs.header().prompt, int64_t(ids.size()));
  const int64_t starts = std::count(ids.begin(), ids.begin() + prompt, t.bos());
  if (t.adds_bos() && t.bos() >= 0 && ids[0] != t.bos())
    violated(fmt::format("the prompt begins with {}, this model's with BOS, {}", ids[0], t.bos()));
  if (t.bos() >= 0 && prompt > 1 && ids[0] == t.bos() && ids[1] == t.bos() && starts > 1)
    violated(fmt::format("BOS ({}) stands twice at the beginning", t.bos()));
  if (prompt > 1 && t.eos() >= 0 && t.eos() != t.bos() && ids[size_t(prompt) - 1] == t.eos() && !t.adds_eos())
    violated(fmt::format("the prompt ends with EOS ({})", t.eos()));
  if (out.size() == before)
    out.push_back({"tokens", Outcome::holds, "input",
                   fmt::format("{} ids, within the vocabulary, BOS and EOS as the file asks", ids.size())});
}

void check_against_file(const Trace& theirs, const Rows& rows, const Model& model,
                        std::vector<Finding>& out) {
  const Sizes there = sizes_of(rows);
  if (there.empty()) return;
  const Sizes ours = own_sizes(model, theirs);
  alignment(model.program(), there, ours, out);
  normality(model.program(), there, ours, out);
}

}  // namespace plumb::trace
