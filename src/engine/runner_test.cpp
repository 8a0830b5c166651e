// Tiny random models of every architecture through the fast plan: every freedom that docs/numerics.md
// promises gives the same bits, and the result lies within its bound of the f64 reference.
#include "engine/runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "cpu/executor.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::logits;
using testing::prompt;
using testing::same_bits;
using testing::TinyFile;

const char* const kArchs[] = {"llama", "qwen2", "qwen3", "gemma3"};
const Format kFormats[] = {Format::F32, Format::Q8_0, Format::Q4_0};

std::vector<Isa> isas() {
  std::vector<Isa> list;
  for (Isa isa : all_isas()) {
    if (supported(isa)) list.push_back(isa);
  }
  return list;
}

// Taps: what a run shows, by position.
using Rows = std::map<int64_t, std::vector<double>>;

void keep(const Program& p, const SeenRows& s, std::map<Value, Rows>& shown) {
  const int64_t size = p.shape(s.value).size();
  std::visit(
      [&](const auto* x) {
        for (int r = 0; r < s.rows; ++r, x += s.stride) shown[s.value][s.position + r] = {x, x + size};
      },
      s.at);
}

// All values; each third; the last ones, around which only wanted rows are computed.
std::vector<std::set<Value>> tap_sets(const Program& p) {
  std::set<Value> all, some;
  for (Value v = 0; v <= p.output; ++v) {
    all.insert(v);
    if (v % 3 == 1) some.insert(v);
  }
  return {all, some, {p.output}, {p.output - 1}, {p.output - 2}};
}

// The logits after a prompt and two steps of one token.
std::vector<float> steps_of(const Model& model, const RunnerOptions& options, std::span<const int> first,
                            std::span<const int> ids) {
  const std::unique_ptr<Runner> runner = Runner::make(model, options);
  std::vector<float> all;
  const auto add = [&](std::span<const float> l) { all.insert(all.end(), l.begin(), l.end()); };
  add(runner->decode(first));
  for (int id : ids.subspan(first.size())) add(runner->decode({&id, 1}));
  return all;
}

void expect_observed(const Model& model, const RunnerOptions& options, std::span<const int> ids, Value value,
                     const Rows& rows) {
  int64_t seen = 0;
  Runner::make(model, options)->observe(ids, value, true, [&](int64_t at, std::span<const double> row) {
    const auto shown = rows.find(at);
    if (shown == rows.end()) return;  // nobody wanted this row
    ++seen;
    EXPECT_EQ(shown->second, std::vector<double>(row.begin(), row.end()))
        << model.program().nodes[size_t(value)].name << " position " << at;
  });
  EXPECT_EQ(seen, int64_t(rows.size()));
  EXPECT_TRUE(seen == int64_t(ids.size()) || seen == 3) << seen;
}

class RunnerOf : public ::testing::TestWithParam<std::tuple<const char*, Format>> {
 protected:
  const TinyFile file{{.arch = std::get<0>(GetParam()), .format = std::get<1>(GetParam())}};
};

TEST_P(RunnerOf, HasTheSameBitsForEveryFusionThreadCountUbatchAndIsa) {
  const std::vector<int> ids = prompt(33);
  const Model plain(file.path(), {.threads = 1, .isa = Isa::scalar});
  for (KvType kv : {KvType::f16, KvType::f32, KvType::bf16, KvType::q8_0}) {
    const std::vector<float> expected = logits(plain, {.n_ubatch = 32, .kv = {kv, kv}}, ids);
    for (Isa isa : isas()) {
      for (int threads : {1, 2, 3}) {
        const Model model(file.path(), {.threads = threads, .isa = isa});
        for (int ubatch : {1, 3, 7, 32}) {
          for (bool fuse : {true, false}) {
            const std::vector<float> l =
                logits(model, {.n_ubatch = ubatch, .kv = {kv, kv}, .fuse = fuse}, ids);
            EXPECT_TRUE(same_bits(l, expected))
                << name(isa) << " threads " << threads << " ubatch " << ubatch << " fuse " << fuse;
          }
        }
      }
    }
  }
}

TEST_P(RunnerOf, LiesWithinTheBoundOfTheReference) {
  const Model model(file.path(), {.threads = 2});
  const std::vector<float> fast = logits(model, {}, prompt(40)),
                           exact = logits(model, {.arith = Arith::ref64}, prompt(40));
  double mean = 0, error = 0, size = 0;
  for (float x : exact) mean += x / double(exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    error += std::pow(double(fast[i]) - exact[i], 2), size += std::pow(exact[i] - mean, 2);
  }
  // numerics.md, section 3: three times the expected rms of L layers of int8 activations. F32: f16 keys and
  // values alone.
  const double layers = testing::TinyModel::kLayers;
  const bool floats = std::get<1>(GetParam()) == Format::F32;
  const double step = floats ? 0.00014 : 0.0055;
  EXPECT_LE(std::sqrt(error / size), 3 * step * std::sqrt(3 * (std::log(2 * layers) + 0.6)));
  EXPECT_GT(error, 0) << "the reference is another arithmetic";
}

TEST_P(RunnerOf, ObservedValuesAreTheSameWithAndWithoutFusionAndForEveryUbatch) {
  const Model model(file.path(), {.threads = 2});
  const std::vector<int> ids = prompt(9);
  for (Value v = 0; v < Value(model.program().nodes.size()); ++v) {
    std::vector<std::vector<double>> expected;
    for (int ubatch : {9, 2}) {
      for (bool fuse : {true, false}) {
        std::vector<std::vector<double>> rows;
        Runner::make(model, {.n_ubatch = ubatch, .fuse = fuse})
            ->observe(ids, v, true, [&](int64_t, std::span<const double> row) {
              rows.emplace_back(row.begin(), row.end());
            });
        if (expected.empty()) expected = rows;
        EXPECT_EQ(rows.size(), ids.size());
        EXPECT_EQ(rows, expected) << model.program().nodes[size_t(v)].name << " fuse " << fuse << " ubatch "
                                  << ubatch;
      }
    }
    if (v != model.program().output) continue;
    const std::vector<float> l = logits(model, {}, ids);
    EXPECT_EQ(expected.back(), std::vector<double>(l.begin(), l.end()))
        << "observed logits are the decoded ones";
  }
}

TEST_P(RunnerOf, TapsChangeNoBitOfAnyArithmeticAndShowWhatObservingShows) {
  const std::vector<int> ids = prompt(9);
  const std::vector<int> first(ids.begin(), ids.end() - 2);
  for (Isa isa : isas()) {
    const Model model(file.path(), {.threads = 2, .isa = isa});
    for (Arith arith : {Arith::fast, Arith::ref32, Arith::ref64}) {
      if (arith != Arith::fast && isa != isas().front()) continue;
      for (int ubatch : {3, 9}) {
        if (arith != Arith::fast && ubatch == 9) continue;
        for (const std::set<Value>& taps : tap_sets(model.program())) {
          std::map<Value, Rows> shown;
          RunnerOptions options{.arith = arith, .n_ubatch = ubatch};
          const std::vector<float> expected = steps_of(model, options, first, ids);
          options.taps = taps, options.see = [&](const SeenRows& s) { keep(model.program(), s, shown); };
          EXPECT_TRUE(same_bits(steps_of(model, options, first, ids), expected))
              << name(isa) << " ubatch " << ubatch << " taps " << taps.size();
          EXPECT_EQ(shown.size(), taps.size());
          if (ubatch != 3) continue;
          for (const auto& [value, rows] : shown) expect_observed(model, {.arith = arith}, ids, value, rows);
        }
      }
    }
  }
}

TEST_P(RunnerOf, WhatATapThrowsEndsTheRun) {
  const Model model(file.path(), {.threads = 2});
  for (Arith arith : {Arith::fast, Arith::ref32}) {
    int calls = 0;
    RunnerOptions options{.arith = arith, .taps = {0, 1, 2}};
    options.see = [&](const SeenRows&) {
      ++calls;
      throw Error({.code = "trace.full"});
    };
    EXPECT_EQ(code_of([&] { logits(model, options, prompt(5)); }), "trace.full");
    EXPECT_EQ(calls, 1);
  }
}

TEST_P(RunnerOf, SeveralSequencesInOneBatchGiveEachWhatItGetsAlone) {
  const Model model(file.path(), {.threads = 2});
  const std::vector<std::vector<int>> texts = {prompt(11, 1), prompt(4, 2), prompt(19, 3)};
  const Plan plan = make_plan(model.program(), {.max_tokens = 40, .max_wanted = 8});
  CpuExecutor executor(plan, model.weights(), model.isa(), model.pool());
  std::vector<KvCache> caches;
  for (size_t s = 0; s < texts.size(); ++s) caches.emplace_back(model.program(), KvTypes{});
  for (KvCache& c : caches) c.reserve(64);
  std::vector<int> tokens, positions, wanted;
  std::vector<KvCache*> owners;
  for (size_t s = 0; s < texts.size(); ++s) {
    for (size_t i = 0; i < texts[s].size(); ++i) {
      tokens.push_back(texts[s][i]), positions.push_back(int(i)), owners.push_back(&caches[s]);
    }
    wanted.push_back(int(tokens.size()) - 1);
  }
  executor.run({tokens, positions, owners, wanted});
  for (size_t s = 0; s < texts.size(); ++s) {
    EXPECT_TRUE(same_bits(executor.row(model.program().output, int(s)), logits(model, {}, texts[s])))
        << "sequence " << s;
  }
  // One more token each, now interleaved in another order.
  const std::vector<int> next = {7, 8, 9}, at = {19, 4, 11};
  const std::vector<KvCache*> order = {&caches[2], &caches[1], &caches[0]};
  const std::vector<int> all = {0, 1, 2};
  executor.run({next, at, order, all});
  for (size_t i = 0; i < 3; ++i) {
    std::vector<int> text = texts[2 - i];
    text.push_back(next[i]);
    EXPECT_TRUE(same_bits(executor.row(model.program().output, int(i)), logits(model, {}, text)))
        << "step of " << 2 - i;
  }
}

TEST_P(RunnerOf, RefusesNumbersThatAreNotFiniteNamingTheStep) {
  const auto [arch, format] = GetParam();
  for (const char* tensor :
       {"blk.1.ffn_norm.weight", "blk.0.attn_v.weight", "blk.2.ffn_down.weight", "output_norm.weight"}) {
    const TinyFile bad({.arch = arch, .format = format, .nan_in = tensor});
    for (Isa isa : isas()) {
      const Model model(bad.path(), {.threads = 2, .isa = isa});
      EXPECT_EQ(code_of([&] { logits(model, {}, prompt(5)); }), "numeric.nonfinite")
          << tensor << " " << name(isa);
    }
  }
}

std::string param_name(const ::testing::TestParamInfo<std::tuple<const char*, Format>>& p) {
  return std::string(std::get<0>(p.param)) + "_" + info(std::get<1>(p.param)).name;
}
INSTANTIATE_TEST_SUITE_P(Models, RunnerOf,
                         ::testing::Combine(::testing::ValuesIn(kArchs), ::testing::ValuesIn(kFormats)),
                         param_name);

TEST(Runner, RefusesMoreTokensThanTheContextHoldsAndKeepsWhatItHas) {
  const TinyFile file({});
  const Model model(file.path(), {});
  const auto runner = Runner::make(model, {.n_ctx = 8});
  runner->decode(prompt(6));
  EXPECT_EQ(code_of([&] { runner->decode(prompt(3)); }), "context.full");
  EXPECT_EQ(runner->length(), 6);
  runner->decode(prompt(2));
  EXPECT_EQ(code_of([&] { runner->decode(prompt(1)); }), "context.full");
}

TEST(Runner, LeavesNoTokenOfAPromptAlone) {
  const TinyFile file({});
  std::vector<int> done;
  const Model model(file.path(), {.progress = [&](const char* what, double share) {
                      if (what == std::string("prompt")) done.push_back(int(std::lround(share * 7)));
                    }});
  Runner::make(model, {.n_ubatch = 3})->decode(prompt(7));
  EXPECT_EQ(done, (std::vector<int>{3, 5, 7}));
  done.clear();
  Runner::make(model, {.n_ubatch = 2})->decode(prompt(7));
  EXPECT_EQ(done, (std::vector<int>{2, 4, 6, 7}));
}

TEST(Runner, WhatWasTruncatedLeavesNoTrace) {
  const TinyFile file({});
  const Model model(file.path(), {});
  const auto runner = Runner::make(model, {});
  runner->decode(prompt(30, 2));
  runner->truncate(0);
  EXPECT_TRUE(same_bits(runner->decode(prompt(7)), logits(model, {}, prompt(7))));
}

TEST(Runner, RefusesTokensOutsideTheVocabulary) {
  const TinyFile file({});
  const Model model(file.path(), {});
  const auto runner = Runner::make(model, {});
  for (int id : {-1, testing::TinyModel::kVocab, 1 << 30}) {
    const std::vector<int> ids = {1, id};
    EXPECT_EQ(code_of([&] { runner->decode(ids); }), "token.range") << id;
    EXPECT_EQ(runner->length(), 0);
  }
}

TEST(Runner, AModelWhoseLogitsOutnumberItsEmbeddingsIsRefused) {
  const TinyFile equal({.n_vocab_out = testing::TinyModel::kVocab});
  EXPECT_NO_THROW(Model(equal.path(), {}));
  const TinyFile more({.n_vocab_out = testing::TinyModel::kVocab + 1});
  EXPECT_EQ(code_of([&] { Model(more.path(), {}); }), "model.shape");
}

TEST(Runner, StopsBetweenCallsWhenCancelled) {
  const TinyFile file({});
  const Model model(file.path(), {});
  std::atomic<bool> cancel = true;
  EXPECT_EQ(code_of([&] { logits(model, {.cancel = &cancel}, prompt(3)); }), "run.cancelled");
}

TEST(Runner, PositionsAcrossThePageBorderHaveTheSameBitsForEveryUbatch) {
  const TinyFile file({.arch = "gemma3", .format = Format::Q8_0});
  const Model model(file.path(), {.threads = 2});
  const std::vector<int> ids = prompt(530);
  const std::vector<float> expected = logits(model, {.n_ubatch = 512}, ids);
  EXPECT_TRUE(same_bits(logits(model, {.n_ubatch = 100}, ids), expected));
  EXPECT_TRUE(same_bits(logits(model, {.n_ubatch = 1}, ids), expected));
}

}  // namespace
}  // namespace plumb
