#include "trace/questions.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "base/error.h"
#include "trace/search.h"
#include "trace/variant.h"

namespace plumb::trace {
namespace {

constexpr int kRandom = 8;      // prompts of random ids beside those of words
constexpr int kContinued = 3;   // of health's own choices that are fed behind a prompt
constexpr size_t kSample = 48;  // faults that choose the prompts which all faults are then asked
constexpr size_t kShortlist = 10;
constexpr double kSure = 3;  // of rounding: a choice that would otherwise be chance is taken for health's

constexpr const char* kTexts[] = {
    "The capital of France is", "1 2 3 4 5",           "Once upon a time",
    "def add(a, b):\n",         "Monday, Tuesday,",    "red green blue",
    "If a, then b. If b,",      "Hello, my name is",   "2 + 2 =",
    "\n\n#include <",           "the the the the the", "A B C D E F G",
};

std::vector<std::vector<int>> candidates(const Model& model) {
  const Tokenizer& tokenizer = model.tokenizer();
  std::vector<std::vector<int>> all;
  for (const char* text : kTexts) all.push_back(tokenizer.encode(text, {}));
  std::mt19937 random(20);
  for (int i = 0; i < kRandom; ++i) {
    std::vector<int> ids = tokenizer.adds_bos() ? std::vector<int>{tokenizer.bos()} : std::vector<int>{};
    for (int n = 0; n < 5; ++n) ids.push_back(int(random() % unsigned(tokenizer.size())));
    all.push_back(std::move(ids));
  }
  return all;
}

// The rows of logits that a run chooses from: of the last of the prompt, and of each id behind it.
using LogitRows = std::vector<std::vector<float>>;

LogitRows logits_of(const Variant& v, const QuestionsRequest& r, const std::vector<int>& ids, size_t prompt,
                    DecodedWeights& decoded, Arithmetic profile = {}) {
  LogitRows rows;
  const std::string& output = v.program.nodes[size_t(v.program.output)].name;
  VariantRun run{.tokens = ids, .values = {output}, .f64 = false, .profile = profile};
  run.decoded = &decoded, run.cancel = r.cancel;
  run_variant(v, r.model.pool(), run, [&](const VariantRows& shown) {
    const size_t size = shown.data.size() / size_t(shown.rows);
    for (size_t row = prompt - 1; row < size_t(shown.rows); ++row) {
      const auto part = shown.data.subspan(row * size, size);
      rows.emplace_back(part.begin(), part.end());
    }
  });
  return rows;
}

int choice(const std::vector<float>& row) {
  return int(
      std::max_element(row.begin(), row.end(), [](float a, float b) { return a < b || std::isnan(a); }) -
      row.begin());
}

// A prompt with what health says behind it, and how far rounding moves health's logits.
struct Asked {
  std::vector<int> prompt, ids;
  LogitRows right;
  double noise = 0;
};

Asked ask_health(const QuestionsRequest& r, const std::vector<int>& prompt, DecodedWeights& decoded) {
  const Variant health = right_variant(r.model);
  Asked a{prompt, prompt, {}, 0};
  for (int i = 0; i < kContinued; ++i)
    a.ids.push_back(choice(logits_of(health, r, a.ids, a.ids.size(), decoded).back()));
  a.right = logits_of(health, r, a.ids, prompt.size(), decoded);
  const LogitRows rounded =
      logits_of(health, r, a.ids, prompt.size(), decoded, {.inputs = Rounded::q8, .cache = Rounded::f16});
  double squares = 0, n = 0;
  for (size_t row = 0; row < a.right.size(); ++row) {
    for (size_t i = 0; i < a.right[row].size(); ++i, ++n)
      squares += std::pow(double(a.right[row][i]) - double(rounded[row][i]), 2);
  }
  a.noise = std::sqrt(squares / n);
  return a;
}

// Where a fault first chooses otherwise than health, and what: -1 if it does not.
int64_t symbol(const LogitRows& rows, const Asked& a) {
  for (size_t i = 0; i < std::min(rows.size(), a.right.size()); ++i) {
    const int mine = choice(rows[i]), right = choice(a.right[i]);
    const float margin = rows[i][size_t(mine)] - rows[i][size_t(right)];
    if (mine != right && !(margin < kSure * a.noise)) return int64_t(i) << 32 | mine;
  }
  return -1;
}

double bits(const std::vector<std::vector<int64_t>>& signatures) {
  std::map<std::vector<int64_t>, int> classes;
  for (const auto& s : signatures) ++classes[s];
  double sum = 0;
  for (const auto& [s, n] : classes) {
    const double p = n / double(signatures.size());
    sum -= p * std::log2(p);
  }
  return sum;
}

class Choosing {
 public:
  explicit Choosing(const QuestionsRequest& request)
      : r_(request), decoded_(int64_t(3) << 30), wrong_(int64_t(1) << 30, &decoded_) {
    for (const std::vector<int>& prompt : candidates(r_.model))
      asked_.push_back(ask_health(r_, prompt, decoded_));
    Evidence everything;  // what single_faults() asks: logits, and no steps
    everything.groups.push_back({.value = "logits"});
    for (const FaultSet& f : single_faults(r_.model, everything)) {
      if (f[0].parameter == f[0].fault->parameter.usual || !f[0].fault->parameter.name) faults_.push_back(f);
    }
  }

  Questions run() {
    std::vector<FaultSet> sample;
    for (size_t i = 0; i < faults_.size(); i += std::max<size_t>(1, faults_.size() / kSample))
      sample.push_back(faults_[i]);
    std::vector<size_t> all(asked_.size());
    for (size_t i = 0; i < all.size(); ++i) all[i] = i;
    simulate(sample, all, "a sample of faults");
    std::vector<size_t> order;
    for (const auto& [at, more] : choose(all, kShortlist)) order.push_back(at);
    simulate(faults_, order, "all faults");
    Questions q;
    q.faults = int64_t(symbols_.size());
    std::vector<size_t> taken;
    for (const auto& [at, more] : choose(order, size_t(r_.count))) {
      q.asked.push_back({asked_[at].prompt, more});
      taken.push_back(at);
    }
    const auto told = signatures(taken);
    q.classes = int64_t(std::set<std::vector<int64_t>>(told.begin(), told.end()).size());
    return q;
  }

 private:
  // What each fault says to each of the prompts.
  void simulate(const std::vector<FaultSet>& faults, const std::vector<size_t>& prompts, const char* what) {
    symbols_.clear();
    for (size_t f = 0; f < faults.size(); ++f) {
      if (r_.progress) r_.progress(what, double(f) / double(faults.size()));
      const std::optional<Variant> v = try_vary(r_.model, faults[f]);
      if (!v || !(v->program.feed == WrongFeed())) continue;
      wrong_.forget();
      std::vector<int64_t> said(asked_.size(), -1);
      for (const size_t p : prompts) {
        std::vector<int> ids = asked_[p].ids, calls = {int(asked_[p].prompt.size())};
        change_tokens(*v, r_.model, ids, calls);
        said[p] = symbol(logits_of(*v, r_, ids, size_t(calls[0]), wrong_), asked_[p]);
      }
      symbols_.push_back(std::move(said));
    }
  }

  std::vector<std::vector<int64_t>> signatures(const std::vector<size_t>& prompts) const {
    std::vector<std::vector<int64_t>> list;
    for (const auto& said : symbols_) {
      std::vector<int64_t> s;
      for (const size_t p : prompts) s.push_back(said[p]);
      list.push_back(std::move(s));
    }
    return list;
  }

  // The prompts that tell most, each beside those before it, with what each adds.
  std::vector<std::pair<size_t, double>> choose(std::vector<size_t> from, size_t count) const {
    std::vector<std::pair<size_t, double>> chosen;
    std::vector<size_t> taken;
    double known = 0;
    while (chosen.size() < count && !from.empty()) {
      size_t best = 0;
      double most = -1;
      for (size_t i = 0; i < from.size(); ++i) {
        std::vector<size_t> with = taken;
        with.push_back(from[i]);
        const double b = bits(signatures(with));
        if (b > most) most = b, best = i;
      }
      chosen.emplace_back(from[best], most - known);
      taken.push_back(from[best]);
      known = most;
      from.erase(from.begin() + int64_t(best));
    }
    return chosen;
  }

  const QuestionsRequest& r_;
  DecodedWeights decoded_, wrong_;  // what the file says; what a fault reads in its place
  std::vector<Asked> asked_;
  std::vector<FaultSet> faults_;
  std::vector<std::vector<int64_t>> symbols_;  // by fault and prompt
};

}  // namespace

Questions choose_questions(const QuestionsRequest& request) { return Choosing(request).run(); }

}  // namespace plumb::trace
