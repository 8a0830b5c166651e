// Fusion rules on small Programs: what joins, what observing undoes, which rows are computed, what steps
// cost.
#include "plan/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "program/graph.h"

namespace plumb {
namespace {

// Tensors that exist in name and shape only.
class Shapes : public WeightIndex {
 public:
  void add(const std::string& name, int64_t rows, int64_t columns, Format format = Format::F32) {
    refs_[name] = {name, rows, columns, format, nullptr};
  }
  WeightRef find(const std::string& name) const override {
    const auto it = refs_.find(name);
    return it == refs_.end() ? WeightRef{} : it->second;
  }

 private:
  std::map<std::string, WeightRef> refs_;
};

// A block with everything: optional norms of heads, norms after branches (gemma3), all of format `f`.
Program block(Format f, bool gemma) {
  Shapes w;
  w.add("token_embd.weight", 100, 64, f);
  for (const char* m : {"q", "output"}) w.add(std::string("blk.0.attn_") + m + ".weight", 64, 64, f);
  for (const char* m : {"k", "v"}) w.add(std::string("blk.0.attn_") + m + ".weight", 32, 64, f);
  for (const char* m : {"gate", "up"}) w.add(std::string("blk.0.ffn_") + m + ".weight", 96, 64, f);
  w.add("blk.0.ffn_down.weight", 64, 96, f);
  for (const char* n : {"blk.0.attn_norm", "blk.0.ffn_norm", "output_norm", "blk.0.post", "blk.0.ffn_post"})
    w.add(std::string(n) + ".weight", 1, 64);
  w.add("blk.0.q_norm.weight", 1, 16), w.add("blk.0.k_norm.weight", 1, 16);
  w.add("blk.0.attn_q.bias", 1, 64);
  Graph g(w);
  Value x = g.embed("token_embd");
  if (gemma) x = g.scale("scaled", x, 8);
  g.block(0);
  Value h = g.rms_norm("attn_norm", x, 1e-5f);
  Value q = g.linear("attn_q", h, 4), k = g.linear("attn_k", h, 2), v = g.linear("attn_v", h, 2);
  if (gemma) q = g.rms_norm("q_norm", q, 1e-5f), k = g.rms_norm("k_norm", k, 1e-5f);
  q = g.rope("q_rope", q, {.dims = 16}), k = g.rope("k_rope", k, {.dims = 16});
  Value a = g.linear("attn_output", g.attention("attn", q, k, v, {.scale = 0.25f}));
  if (gemma) a = g.rms_norm("post", a, 1e-5f);
  x = g.add("attn_out", x, a);
  h = g.rms_norm("ffn_norm", x, 1e-5f);
  Value gate = g.linear("ffn_gate", h), up = g.linear("ffn_up", h);
  Value ffn = g.linear("ffn_down", g.glu("ffn_act", gate, up, Act::silu));
  if (gemma) ffn = g.rms_norm("ffn_post", ffn, 1e-5f);
  x = g.add("ffn_out", x, ffn);
  g.block(-1);
  g.head(g.rms_norm("output_norm", x, 1e-5f));
  return g.p;
}

// "linear*3: attn_q attn_k attn_v" without prefixes, costs and forms, one per step.
std::vector<std::string> lines(const Plan& plan) {
  std::vector<std::string> out;
  const std::string text = print(plan);
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    std::string line = text.substr(at, end - at).substr(std::min<size_t>(31, end - at));
    for (const char* drop : {"blk.0.", ":-"}) {
      for (size_t i; (i = line.find(drop)) != std::string::npos;) line.erase(i, std::string(drop).size());
    }
    out.push_back(line);
    at = end + 1;
  }
  return {out.begin() + 2, out.end() - 1};
}

using Lines = std::vector<std::string>;

TEST(Fusion, ALlamaModelOfOneBlockBecomesTwelveStepsWhenWeightsAreF32) {
  EXPECT_EQ(
      lines(make_plan(block(Format::F32, false), {})),
      (Lines{"embed: token_embd", "rope_table:", "row+norm: attn_norm", "linear*3: attn_q attn_k attn_v",
             "heads: q_rope k_rope", "attention: attn", "linear+add: attn_output attn_out",
             "row+norm: ffn_norm", "linear*2+glu: ffn_gate ffn_up ffn_act", "linear+add: ffn_down ffn_out",
             "row+norm (wanted rows): output_norm", "linear (wanted rows): logits"}));
}

TEST(Fusion, NormsAroundBranchesJoinTheAddition) {
  EXPECT_EQ(lines(make_plan(block(Format::F32, true), {})),
            (Lines{"embed: token_embd scaled", "rope_table:", "row+norm: attn_norm",
                   "linear*3: attn_q attn_k attn_v", "heads: q_norm q_rope k_norm k_rope", "attention: attn",
                   "linear: attn_output", "row+norm+add+norm: post attn_out ffn_norm",
                   "linear*2+glu: ffn_gate ffn_up ffn_act", "linear: ffn_down",
                   "row+norm+add+norm (wanted rows): ffn_post ffn_out output_norm",
                   "linear (wanted rows): logits"}));
}

// Such a sum once had room for the wanted rows and was written at the rows of the tokens: over whatever lay
// behind it.
TEST(Plan, ASumThatOnlyTheNormBeforeTheOutputReadsHasNoRows) {
  for (Format f : {Format::F32, Format::Q8_0}) {
    const Program p = block(f, true);
    const Plan plan = make_plan(p, {.max_tokens = 40});
    EXPECT_TRUE(plan.steps.back().wanted);
    EXPECT_LT(plan.places[size_t(p.find("blk.0.ffn_out"))], 0);
  }
}

TEST(Fusion, WithoutItEveryOperationIsAStepOfItsOwn) {
  const Program p = block(Format::F32, true);
  const Plan plan = make_plan(p, {.fuse = false});
  std::vector<int> steps(p.nodes.size(), 0);
  for (const Step& s : plan.steps) {
    EXPECT_LE(s.values.size(), 1u);
    for (Value v : s.values) ++steps[size_t(v)];
  }
  for (size_t v = 0; v < steps.size(); ++v) EXPECT_EQ(steps[v], 1) << p.nodes[v].name;
}

TEST(Fusion, NormsJoinTheMatricesThatReadThemWhenTheseRoundTheirInput) {
  const Lines expected = {"embed: token_embd",
                          "rope_table:",
                          "row+norm+linear*3: attn_norm attn_q attn_k attn_v",
                          "heads: q_rope k_rope",
                          "attention: attn",
                          "linear+add: attn_output attn_out",
                          "row+norm+linear*2+glu: ffn_norm ffn_gate ffn_up ffn_act",
                          "linear+add: ffn_down ffn_out",
                          "row+norm+linear (wanted rows): output_norm logits"};
  const Program p = block(Format::Q8_0, false);
  EXPECT_EQ(lines(make_plan(p, {})), expected);
  const Lines observed = lines(make_plan(p, {.observed = {p.find("blk.0.ffn_norm"), p.output}}));
  EXPECT_EQ(std::count(observed.begin(), observed.end(), "row+norm: ffn_norm"), 1) << "seen, so kept apart";
  const Lines apart = lines(make_plan(p, {.rows_apart = true}));
  EXPECT_EQ(std::count(apart.begin(), apart.end(), "row+norm: attn_norm"), 1);
}

TEST(Rounding, IsTheOneAskedForButFineForTheOutputMatrixWhereOthersAreRefined) {
  const Program p = block(Format::Q8_0, false);
  for (Rounding r : {Rounding::int8, Rounding::refined, Rounding::int16}) {
    for (const Step& s : make_plan(p, {.rounding = r}).steps) {
      const auto* l = std::get_if<LinearStep>(&s.what);
      if (!l) continue;
      const bool output = l->parts[0].out == p.output;
      EXPECT_EQ(l->rounding, output && r == Rounding::refined ? Rounding::int16 : r);
    }
  }
}

TEST(Fusion, ObservingAValueGivesItABufferAndChangesOnlyWhatHidIt) {
  for (bool gemma : {false, true}) {
    for (Format f : {Format::F32, Format::Q8_0}) {
      const Program p = block(f, gemma);
      for (Value v = 0; v < Value(p.nodes.size()); ++v) {
        const Plan plan = make_plan(p, {.max_tokens = 5, .all_rows = true, .observed = {v}});
        EXPECT_GE(plan.places[size_t(v)], 0) << p.nodes[size_t(v)].name;
        for (const Step& s : plan.steps) {
          if (const auto* l = std::get_if<LinearStep>(&s.what); l && (l->sum >= 0 || l->glu >= 0)) {
            for (const LinearStep::Part& part : l->parts) EXPECT_NE(part.out, v) << "hidden in a fused step";
          }
        }
      }
    }
  }
  const Program p = block(Format::F32, false);
  const Lines l = lines(make_plan(p, {.observed = {p.find("blk.0.ffn_gate"), p.output}}));
  EXPECT_EQ(std::count(l.begin(), l.end(), "glu: ffn_act"), 1);
  EXPECT_EQ(std::count(l.begin(), l.end(), "linear*2: ffn_gate ffn_up"), 1);
  EXPECT_EQ(std::count(l.begin(), l.end(), "linear+add: attn_output attn_out"), 1) << "the rest stays fused";
}

TEST(Fusion, ObservingStopsAtWhatIsAskedFor) {
  const Program p = block(Format::F32, false);
  const Lines l = lines(make_plan(p, {.all_rows = true, .observed = {p.find("blk.0.attn_norm")}}));
  EXPECT_EQ(l, (Lines{"embed: token_embd", "row+norm: attn_norm"}));
}

TEST(Fusion, EveryInputIsComputedBeforeItIsRead) {
  for (bool fuse : {true, false}) {
    for (bool gemma : {true, false}) {
      const Program p = block(Format::Q4_0, gemma);
      const Plan plan = make_plan(p, {.fuse = fuse});
      std::vector<bool> done(p.nodes.size());
      for (const Step& s : plan.steps) {
        for (Value v : s.values) {
          done[size_t(v)] = true;
          for (Value in : p.nodes[size_t(v)].in) {
            EXPECT_TRUE(done[size_t(in)] || std::find(s.values.begin(), s.values.end(), in) != s.values.end())
                << p.nodes[size_t(v)].name << " before " << p.nodes[size_t(in)].name;
          }
        }
      }
    }
  }
}

TEST(WantedRows, OnlyTheLastNormAndTheOutputMatrixAreCutAndOnlyWhenNobodyLooks) {
  const Program p = block(Format::F32, false);
  const auto wanted = [&](PlanOptions o) {
    std::vector<std::string> names;
    for (const Step& s : make_plan(p, o).steps) {
      for (Value v : s.values) {
        if (s.wanted) names.push_back(p.nodes[size_t(v)].name);
      }
    }
    return names;
  };
  EXPECT_EQ(wanted({}), (Lines{"output_norm", "logits"}));
  EXPECT_EQ(wanted({.fuse = false}), (Lines{"output_norm", "logits"}));
  EXPECT_EQ(wanted({.all_rows = true}), Lines{});
  EXPECT_EQ(wanted({.observed = {p.output}}), Lines{});
  EXPECT_EQ(wanted({.observed = {p.find("output_norm"), p.output}}), Lines{});
  const Plan plan = make_plan(p, {.max_tokens = 7, .all_rows = true});
  EXPECT_EQ(plan.max_wanted, 7);
}

TEST(Costs, CountTheBytesOfWeightsAndTheFlopsOfProducts) {
  const Program p = block(Format::Q8_0, false);
  int64_t bytes = 0;
  for (const Step& s : make_plan(p, {}).steps) {
    bytes += s.weight_bytes;
    if (const auto* l = std::get_if<LinearStep>(&s.what); l && l->parts.size() == 3) {
      EXPECT_EQ(s.weight_bytes, (64 + 32 + 32) * 2 * 34 + 2 * 64 * 4) << "three matrices, a bias and a norm";
      EXPECT_EQ(s.flops, 2 * 64 * (64 + 32 + 32) + 4 * 64);
    }
    if (std::holds_alternative<EmbedStep>(s.what)) {
      EXPECT_EQ(s.weight_bytes, 2 * 34) << "one row";
    }
    if (std::holds_alternative<AttentionStep>(s.what)) {
      EXPECT_EQ(s.flops, 4 * 64) << "per key: q k and p v";
    }
  }
  int64_t all = 2 * 34;  // the row of the token
  for (const WeightRef& w : p.weights) all += w.rows * row_bytes(w.format, w.columns);
  EXPECT_EQ(bytes, all);
}

}  // namespace
}  // namespace plumb
