// The formulas of program/ops.h against values worked out by hand, and what the Graph refuses.
#include "program/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "base/error.h"
#include "program/dot.h"
#include "program/graph.h"
#include "program/ops.h"
#include "program/wrong_ops.h"

namespace plumb {
namespace {

TEST(Ops, RmsNormDividesByTheRootOfTheMeanSquare) {
  const double x[2] = {3, 4}, g[2] = {2, 10};
  double y[2];
  ops::rms_norm(x, g, 2, 0.0, y);  // mean square 12.5
  EXPECT_NEAR(y[0], 6 / std::sqrt(12.5), 1e-15);
  EXPECT_NEAR(y[1], 40 / std::sqrt(12.5), 1e-14);
  ops::rms_norm(x, g, 2, 3.5, y);  // 12.5 + 3.5 = 16
  EXPECT_EQ(y[0], 1.5);
}

TEST(Ops, RopeTurnsThePairsOfItsStyleAndLeavesTheRest) {
  const double x[6] = {1, 2, 3, 4, 5, 6};
  double y[6];
  const double c = std::cos(1.0), s = std::sin(1.0), c2 = std::cos(0.1), s2 = std::sin(0.1);
  ops::rope<double>({.style = RopeStyle::half, .dims = 4, .freq_base = 100}, nullptr, 1, 6, x,
                    y);  // angles 1, 0.1
  const double half[6] = {c - 3 * s, 2 * c2 - 4 * s2, s + 3 * c, 2 * s2 + 4 * c2, 5, 6};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(y[i], half[i], 1e-14) << i;
  ops::rope<double>({.style = RopeStyle::pairs, .dims = 4, .freq_base = 100}, nullptr, 1, 6, x, y);
  const double pairs[6] = {c - 2 * s, s + 2 * c, 3 * c2 - 4 * s2, 3 * s2 + 4 * c2, 5, 6};
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(y[i], pairs[i], 1e-14) << i;
}

TEST(Ops, RopeFactorsAndLinearScalingDivideTheAngle) {
  Rope rope{.dims = 4, .freq_base = 100};
  EXPECT_NEAR(ops::rope_turn(rope, 8, 40, 1).angle, 0.5, 1e-15);  // 40 * 0.1 / 8
  rope.scaling = RopeScaling::linear, rope.factor = 4;
  EXPECT_NEAR(ops::rope_turn(rope, 1, 40, 0).angle, 10, 1e-14);
  EXPECT_EQ(ops::rope_turn(rope, 1, 40, 0).magnitude, 1);
}

TEST(Ops, RowsTimesTokensHaveTheBitsOfSingleProducts) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  for (const int n : {1, 15, 16, 37, 576}) {
    for (const int rows : {1, 4, 9, 17}) {
      for (const int tokens : {1, 3, 4, 11}) {
        const int stride = n + 3;
        std::vector<float> w(size_t(rows * stride)), x(size_t(tokens * n)), y(size_t(rows * tokens));
        for (auto* all : {&w, &x}) {
          for (float& f : *all) f = normal(random);
        }
        dot_rows(w.data(), rows, stride, x.data(), tokens, n, y.data());
        for (int i = 0; i < rows * tokens; ++i)
          EXPECT_EQ(y[size_t(i)], ops::dot(&w[size_t(i / tokens * stride)], &x[size_t(i % tokens * n)], n));
        for (const InOrder order : {InOrder{}, InOrder{Rounded::f16}, InOrder{Rounded::bf16},
                                    InOrder{Rounded::tf32}, InOrder{.from_end = true}}) {
          dot_rows_in_order(order, w.data(), rows, stride, x.data(), tokens, n, y.data());
          for (int i = 0; i < rows * tokens; ++i) {
            float sum = 0;
            for (int k = 0; k < n; ++k) {
              const int at = order.from_end ? n - 1 - k : k;
              sum = ops::rounded(order.sums,
                                 sum + w[size_t(i / tokens * stride + at)] * x[size_t(i % tokens * n + at)]);
            }
            EXPECT_EQ(y[size_t(i)], sum);
          }
        }
      }
    }
  }
}

TEST(Ops, BlocksOfQ8HaveAScaleFor32AndThoseOfQ8KFor256) {
  for (const auto& [format, block] : {std::pair(Rounded::q8, 32u), std::pair(Rounded::q8_k, 256u)}) {
    std::vector<float> x(300, .4f);
    x[0] = 127;  // the step is 1 as far as its block goes
    ops::round_all(format, std::span(x));
    for (size_t i = 1; i < x.size(); ++i) EXPECT_NEAR(x[i], i < block ? 0 : .4, 1e-3) << i;
  }
}

TEST(Ops, YarnKeepsFastPairsStretchesSlowOnesAndWarmsAttention) {
  // Of 64 dims at base 10000 and context 4096: 32 turns at pair 64 ln(4096 / (64 pi)) / (2 ln 10000) = 10.47,
  // one turn at 22.51. So pairs up to 10 stay, from 23 on they are divided by the factor, between them the
  // ramp (i - 10) / 13.
  const Rope rope{
      .dims = 64, .freq_base = 1e4f, .scaling = RopeScaling::yarn, .factor = 4, .original_context = 4096};
  const auto ratio = [&](int i) {
    return ops::rope_turn(rope, 1, 1, i).angle / std::pow(1e4, -2.0 * i / 64);
  };
  EXPECT_NEAR(ratio(0), 1, 1e-15);
  EXPECT_NEAR(ratio(10), 1, 1e-15);
  EXPECT_NEAR(ratio(12), 1 - 2.0 / 13 * 0.75, 1e-14);
  EXPECT_NEAR(ratio(23), 0.25, 1e-15);
  EXPECT_NEAR(ratio(31), 0.25, 1e-15);
  EXPECT_NEAR(ops::rope_turn(rope, 1, 1, 0).magnitude, 1 + 0.1 * std::log(4.0), 1e-15);
}

TEST(Ops, AttentionIsTheWeightedMeanOfTheVisibleValues) {
  const double keys[3] = {0, std::log(2.0), std::log(4.0)}, values[3] = {10, 20, 40}, q = 1;
  double y = 0;
  ops::attention<double>({.scale = 1}, &q, keys, values, 1, 2, 1, &y);
  EXPECT_NEAR(y, (10 + 2 * 20 + 4 * 40) / 7.0, 1e-13);
  ops::attention<double>({.scale = 1, .window = 2}, &q, keys, values, 1, 2, 1, &y);
  EXPECT_NEAR(y, (2 * 20 + 4 * 40) / 6.0, 1e-13);
  ops::attention<double>({.scale = 0}, &q, keys, values, 1, 1, 1, &y);
  EXPECT_NEAR(y, 15, 1e-14);
}

TEST(Ops, ActivationsHaveTheirKnownValues) {
  EXPECT_EQ(ops::activate(Act::silu, 0.0), 0);
  EXPECT_NEAR(ops::activate(Act::silu, 1.0), 0.7310585786300049, 1e-15);
  EXPECT_NEAR(ops::activate(Act::gelu_tanh, 1.0), 0.8411919906082768, 1e-14);
  EXPECT_NEAR(ops::activate(Act::gelu_tanh, -1.0), -0.1588080093917232, 1e-14);
}

class Shapes : public WeightIndex {
 public:
  void add(const std::string& name, int64_t rows, std::vector<float> data) {
    data_[name] = std::move(data);
    const auto& d = data_[name];
    refs_[name] = {name, rows, int64_t(d.size()) / rows, Format::F32,
                   reinterpret_cast<const uint8_t*>(d.data())};
  }
  WeightRef find(const std::string& name) const override {
    const auto it = refs_.find(name);
    return it == refs_.end() ? WeightRef{} : it->second;
  }

 private:
  std::map<std::string, std::vector<float>> data_;
  std::map<std::string, WeightRef> refs_;
};

TEST(Reference, RunsAProgramByHandComputedSteps) {
  Shapes w;
  w.add("token_embd.weight", 2, {1, 2, 3, 4});
  w.add("m.weight", 2, {1, 1, 1, -1});
  w.add("m.bias", 1, {10, 20});
  Graph g(w);
  const Value x = g.embed("token_embd");
  g.add("sum", g.scale("twice", x, 2), g.linear("m", x));  // token 1: 2 (3, 4) + (3 + 4, 3 - 4) + (10, 20)
  Pool pool(1);
  Reference<double> reference(g.p, pool);
  const std::vector<int> tokens = {1, 0};
  std::vector<double> out;
  reference.run(tokens, g.p.output, [&](Value v, std::span<const double> rows) {
    if (v == g.p.output) out.assign(rows.begin(), rows.end());
  });
  EXPECT_EQ(out, (std::vector<double>{23, 27, 15, 23}));
  EXPECT_EQ(reference.length(), 2);
}

struct Refusal {
  std::string code, tensor, line;
};
template <class F>
Refusal refusal(F f) {
  try {
    f();
  } catch (const Error& e) {
    return {e.code(), e.where().tensor, e.where().line};
  }
  return {};
}

TEST(Graph, RefusalsNameTheTensorAndTheLineOfTheModel) {
  Shapes w;
  w.add("token_embd.weight", 3, std::vector<float>(12));
  w.add("blk.2.norm.weight", 1, std::vector<float>(5));
  w.add("blk.2.m.weight", 6, std::vector<float>(24));
  w.add("output.weight", 4, std::vector<float>(16));
  const auto check = [&](const char* code, const char* tensor, auto use) {
    Graph g(w);
    const Value x = g.embed("token_embd");
    g.block(2);
    const Refusal r = refusal([&] { use(g, x); });
    EXPECT_EQ(r.code, code) << tensor;
    EXPECT_EQ(r.tensor, tensor);
    EXPECT_EQ(r.line, "models/some.cpp:7") << tensor;
  };
  const Here at("models/some.cpp", 7);
  check("model.tensor_missing", "blk.2.gone.weight", [&](Graph& g, Value x) { g.linear("gone", x, 1, at); });
  check("model.shape", "blk.2.norm.weight", [&](Graph& g, Value x) { g.rms_norm("norm", x, 0, at); });
  check("model.shape", "blk.2.m.weight", [&](Graph& g, Value x) { g.linear("m", x, 4, at); });
  check("model.shape", "blk.2.turn", [&](Graph& g, Value x) { g.rope("turn", x, {.dims = 3}, at); });
  check("model.shape", "blk.2.turn", [&](Graph& g, Value x) { g.rope("turn", x, {.dims = 6}, at); });
  check("model.shape", "blk.2.sum", [&](Graph& g, Value x) { g.add("sum", x, g.linear("m", x), at); });
  check("model.shape", "blk.2.act",
        [&](Graph& g, Value x) { g.glu("act", x, g.linear("m", x), Act::silu, at); });
  check("model.shape", "blk.2.attn",
        [&](Graph& g, Value x) { g.attention("attn", x, x, g.linear("m", x), {}, at); });
  check("model.shape", "output.weight", [&](Graph& g, Value x) { g.block(-1), g.head(x, at); });
}

TEST(Graph, ATiedMatrixIsOneWeight) {
  Shapes w;
  w.add("token_embd.weight", 3, std::vector<float>(12));
  Graph g(w);
  g.head(g.embed("token_embd"));
  EXPECT_EQ(g.p.weights.size(), 1u);
  EXPECT_EQ(g.p.nodes.back().name, "logits");
}

}  // namespace
}  // namespace plumb
