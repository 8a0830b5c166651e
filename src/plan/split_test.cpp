// How a Program is split among ranks: who has which rows, what is gathered, and what is refused.
#include "plan/split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "plan/plan.h"
#include "program/graph.h"

namespace plumb {
namespace {

class SmallWeights : public WeightIndex {
 public:
  void add(const std::string& name, int64_t rows, int64_t columns, Format format = Format::Q8_0) {
    data_[name].resize(size_t(rows * row_bytes(format, columns)));
    refs_[name] = {name, rows, columns, format, data_[name].data()};
  }
  WeightRef find(const std::string& name) const override {
    const auto it = refs_.find(name);
    return it == refs_.end() ? WeightRef{} : it->second;
  }

 private:
  std::map<std::string, WeightRef> refs_;
  std::map<std::string, std::vector<uint8_t>> data_;
};

constexpr int kEmbd = 160, kFf = 224, kVocab = 100, kDim = 16;

// One layer with six query heads and three of keys and values, the output tied.
struct Small {
  SmallWeights w;
  Program program;
  explicit Small(bool post_norm = false) {
    w.add("token_embd.weight", kVocab, kEmbd);
    w.add("blk.0.attn_q.weight", 6 * kDim, kEmbd), w.add("blk.0.attn_q.bias", 1, 6 * kDim, Format::F32);
    for (const char* m : {"k", "v"}) w.add(std::string("blk.0.attn_") + m + ".weight", 3 * kDim, kEmbd);
    w.add("blk.0.attn_output.weight", kEmbd, 6 * kDim);
    for (const char* m : {"gate", "up"}) w.add(std::string("blk.0.ffn_") + m + ".weight", kFf, kEmbd);
    w.add("blk.0.ffn_down.weight", kEmbd, kFf);
    for (const char* n : {"blk.0.attn_norm", "blk.0.ffn_norm", "output_norm", "blk.0.post"})
      w.add(std::string(n) + ".weight", 1, kEmbd, Format::F32);
    Graph g(w);
    Value x = g.embed("token_embd");
    g.block(0);
    Value h = g.rms_norm("attn_norm", x, 1e-5f);
    const Value q = g.rope("q_rope", g.linear("attn_q", h, 6), {.dims = kDim});
    const Value k = g.rope("k_rope", g.linear("attn_k", h, 3), {.dims = kDim});
    Value a = g.linear("attn_output", g.attention("attn", q, k, g.linear("attn_v", h, 3), {}));
    if (post_norm) a = g.rms_norm("post", a, 1e-5f);
    x = g.add("attn_out", x, a);
    h = g.rms_norm("ffn_norm", x, 1e-5f);
    const Value gate = g.linear("ffn_gate", h), up = g.linear("ffn_up", h);
    x = g.add("ffn_out", x, g.linear("ffn_down", g.glu("ffn_act", gate, up, Act::silu)));
    g.block(-1);
    g.head(g.rms_norm("output_norm", x, 1e-5f));
    program = g.p;
  }
};

const Node& node(const Program& p, const std::string& name) {
  const Value v = p.find(name);
  EXPECT_GE(v, 0) << name;
  return p.nodes[size_t(std::max(v, 0))];
}

std::vector<std::string> gathered(const Program& p) {
  std::vector<std::string> names;
  for (const Node& n : p.nodes) {
    if (std::holds_alternative<Gather>(n.op)) names.push_back(n.name);
  }
  return names;
}

std::string code_of(const Program& p, int ranks) {
  try {
    rank_program(p, 0, ranks);
  } catch (const Error& e) {
    return e.code();
  }
  return "nothing thrown";
}

TEST(Split, EveryRowOfEveryMatrixIsOneRanks) {
  const Small small;
  const size_t n = small.program.weights.size();
  for (int ranks : {1, 2, 3}) {
    std::vector<int64_t> next(n);  // row
    for (int r = 0; r < ranks; ++r) {
      const Program p = rank_program(small.program, r, ranks).program;
      for (const Node& node : p.nodes) {
        const auto* l = std::get_if<Linear>(&node.op);
        if (!l) continue;
        const size_t w = size_t(l->w) % n;
        const WeightRef &all = small.program.weights[w], &mine = p.weights[size_t(l->w)];
        EXPECT_EQ(mine.data, all.data + next[w] * row_bytes(all.format, all.columns)) << all.name;
        EXPECT_EQ(mine.columns, all.columns);
        EXPECT_EQ(mine.rows, node.shape.size());
        EXPECT_EQ(mine.whole_rows, ranks > 1 ? all.rows : 0);
        next[w] += mine.rows;
      }
    }
    for (size_t w = 0; w < n; ++w) {
      const WeightRef& all = small.program.weights[w];
      EXPECT_EQ(next[w], all.rows > 1 ? all.rows : 0) << all.name;
    }
  }
}

TEST(Split, HeadsGoWithTheirKvHeadAndRowsInThirtyTwosTheFirstRanksHaveMore) {
  const Small small;
  const Program a = rank_program(small.program, 0, 2).program, b = rank_program(small.program, 1, 2).program;
  EXPECT_EQ(node(a, "blk.0.attn_q[1/2]").shape, (Shape{4, kDim}));
  EXPECT_EQ(node(b, "blk.0.attn_q[2/2]").shape, (Shape{2, kDim}));
  EXPECT_EQ(node(a, "blk.0.attn_k[1/2]").shape, (Shape{2, kDim}));
  EXPECT_EQ(node(b, "blk.0.attn_v[2/2]").shape, (Shape{1, kDim}));
  EXPECT_EQ(node(a, "blk.0.attn_output[1/2]").shape.size(), 96);
  EXPECT_EQ(node(b, "blk.0.attn_output[2/2]").shape.size(), 64);
  EXPECT_EQ(node(a, "blk.0.ffn_gate[1/2]").shape.size(), 128);
  EXPECT_EQ(node(b, "logits[2/2]").shape.size(), 36);
  const WeightRef& bias = b.weights[size_t(std::get<Linear>(node(b, "blk.0.attn_q[2/2]").op).bias)];
  EXPECT_EQ(bias.columns, 2 * kDim);
  EXPECT_EQ(bias.data, small.w.find("blk.0.attn_q.bias").data + 4 * kDim * 4);
}

TEST(Split, WhatMatricesAndNormsReadIsGatheredAndResidualsAreNot) {
  const Small small, post(true);
  const std::vector<std::string> want = {"blk.0.attn", "blk.0.attn_out", "blk.0.ffn_act", "blk.0.ffn_out",
                                         "logits"};
  EXPECT_EQ(gathered(rank_program(small.program, 1, 2).program), want);
  EXPECT_EQ(gathered(rank_program(post.program, 1, 2).program)[1], "blk.0.attn_output");
  const Program p = rank_program(small.program, 1, 2).program;
  EXPECT_EQ(node(p, "token_embd[2/2]").shape.size(), 64);  // of the first residual
  EXPECT_EQ(p.nodes[size_t(p.output)].name, "logits");
  EXPECT_EQ(p.nodes[size_t(p.output)].shape.size(), kVocab);
}

TEST(Split, WantedValuesAreGatheredAndFoundByTheirName) {
  const Small small;
  const Value q = small.program.find("blk.0.attn_q"), norm = small.program.find("blk.0.ffn_norm");
  const RankProgram r = rank_program(small.program, 1, 2, {q, norm});
  EXPECT_EQ(r.program.find("blk.0.attn_q"), r.whole[size_t(q)]);
  EXPECT_EQ(r.program.shape(r.whole[size_t(q)]), (Shape{6, kDim}));
  EXPECT_EQ(r.program.find("blk.0.ffn_norm"), r.whole[size_t(norm)]);
  EXPECT_EQ(r.whole[size_t(small.program.find("blk.0.attn_v"))], -1);
}

TEST(Split, PlansKeepAPartUntilTheNextGatherAndRoundBeforeTheOutputAsOneRankDoes) {
  const Small small;
  const Program p = rank_program(small.program, 0, 2).program;
  const Plan plan = make_plan(p, {.max_tokens = 4, .rows_apart = true});
  int gathers = 0;
  for (const Step& s : plan.steps) {
    if (const auto* g = std::get_if<GatherStep>(&s.what)) {
      ++gathers;
      EXPECT_EQ(s.wanted, g->out == p.output);
    }
    const auto* l = std::get_if<LinearStep>(&s.what);
    if (l && l->parts[0].out == ungathered(p, p.output)) {
      EXPECT_EQ(l->rounding, Rounding::int16);
      EXPECT_TRUE(s.wanted);
    }
  }
  EXPECT_EQ(gathers, 5);
  // The part of attention lives on while the output matrix writes its own.
  const auto place = [&](const char* name) { return plan.places[size_t(p.find(name))]; };
  EXPECT_NE(place("blk.0.attn[1/2]"), place("blk.0.attn_out[1/2]"));
  EXPECT_GE(place("blk.0.attn[1/2]"), 0);
}

TEST(Split, MoreRanksThanKvHeadsAreRefused) {
  EXPECT_EQ(code_of(Small().program, 4), "split.heads");
  EXPECT_EQ(code_of(Small().program, 3), "nothing thrown");
}

}  // namespace
}  // namespace plumb
