#include "trace/log_rules.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "trace/labels.h"
#include "trace/lattice.h"

namespace plumb::trace {
namespace {

Trace imported(const char* rules, const char* log) {
  return Trace::parse(dump(LogRules::parse(rules, "r").import(log, "l")), "l");
}

TEST(LogRules, StatisticsKeepTheDigitsInWhichTheyWerePrinted) {
  const Trace t =
      imported("[LAYER {L}] Output: {s} -> blk.{L}.ffn_out all stats",
               "12:01 [LAYER 3] Output: rms=0.010, min=-1.5, std=2.25, max=7 (ok)\nsomething else\n");
  ASSERT_EQ(t.records().size(), 1u);
  const Record& r = t.records()[0];
  EXPECT_EQ(r.value, "blk.3.ffn_out");
  EXPECT_DOUBLE_EQ(r.stats[Stat::rms]->value, 0.010);
  EXPECT_DOUBLE_EQ(r.stats[Stat::rms]->unit, 0.0005);
  EXPECT_DOUBLE_EQ(r.stats[Stat::min]->value, -1.5);
  EXPECT_DOUBLE_EQ(r.stats[Stat::max]->value, 7);
  const Json& header = t.header().json;
  EXPECT_EQ(dump(*(*header.find("records")->array())[0].find("more")), R"({"std":"2.25"})");
  EXPECT_EQ(dump(*header.find("log")->find("other")), R"(["something else"])");
}

TEST(LogRules, TopLinesGatherInTheRecordOfTheirStep) {
  const Trace t = imported(
      "[STEP {n}] {_} -> set step\nStats {s} -> logits last stats\n#{k}: token={t} logit={x} -> logits at "
      "step last top",
      "[STEP 2] go\nStats max=9.5\n  #1: token=7 logit=9.5\n #2: token=3 logit=-inf\n");
  ASSERT_EQ(t.records().size(), 1u);
  EXPECT_EQ(t.records()[0].step, 2);
  EXPECT_TRUE(t.records()[0].last);
  ASSERT_EQ(t.records()[0].samples.size(), 2u);
  EXPECT_EQ(t.records()[0].samples[1].first, 3);
  EXPECT_EQ(t.records()[0].samples[1].second.value, -INFINITY);
}

TEST(LogRules, ARuleThatCannotBeReadIsRefusedWithItsLine) {
  for (const char* rules :
       {"no arrow", "{x} -> parameter n", "a {x}{y} -> x all stats", "a {x -> x all stats",
        "a {s} -> x all means", "a {s} -> x some stats", "a -> x", "", "a {t} -> x row - head"}) {
    try {
      LogRules::parse(rules, "file");
      FAIL() << rules;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), "log.rule") << rules;
      EXPECT_EQ(e.where().key, "line 1");
    }
  }
}

TEST(LogRules, ALogOfWhichNoLineIsKnownIsRefused) {
  EXPECT_THROW(imported("a {s} -> x all stats", "b\nc\n"), Error);
}

TEST(LogRules, ALongLogOfOneRecordIsLinear) {
  std::string log;
  for (int i = 0; i < 100000; ++i) log += "token " + std::to_string(i) + " logit=1.5\n";
  const Trace t = imported("token {t} logit={x} -> logits last named", log.c_str());
  EXPECT_EQ(t.records()[0].samples.size(), 100000u);
}

std::vector<Number> printed(std::initializer_list<const char*> texts) {
  std::vector<Number> out;
  Json::Array a;
  for (const char* text : texts) a.push_back(text);
  Json r;
  r.set("value", "x"), r.set("head8", a);
  return parse_record(r, "t", "").head8;
}

TEST(Lattice, ThreePrintedFloatsGiveTheirCodes) {
  // Row 1 of token_embd in Q6_K as an engine printed it: q + 32 = 38, 0, 37.
  const auto lattices = find_lattices(printed({"-0.0010786057", "0.0057525635", "-0.00089883804"}));
  const auto q6 = std::find_if(lattices.begin(), lattices.end(),
                               [](const Lattice& l) { return std::string_view(l.format->name) == "Q6_K"; });
  ASSERT_NE(q6, lattices.end());
  EXPECT_EQ(q6->solutions, 1);
  EXPECT_EQ(q6->codes, (std::vector<int>{38, 0, 37}));
  EXPECT_LT(q6->chance, 1e-6);
}

TEST(Lattice, NumbersOffEveryLatticeHaveNoSolution) {
  for (const Lattice& l : find_lattices(printed({"0.12345678", "0.70710678", "0.31415927", "0.27182818"})))
    EXPECT_EQ(l.solutions, 0) << l.format->name;
}

TEST(Lattice, ARulerFindsStepAndOffsetOfABlock) {
  std::vector<float> x;
  for (int k : {3, 9, 0, 12, 15, 6, 6, 3}) x.push_back(-0.25f + 0.01f * float(k));
  const Ruler r = ruler_of(x);
  EXPECT_NEAR(r.step, 0.03, 1e-6);
  EXPECT_NEAR(r.offset, -0.25, 1e-6);
}

Record sized(const char* value, double rms, std::vector<std::string> candidates = {}) {
  Record r;
  r.value = candidates.empty() ? value : "", r.raw = value, r.candidates = std::move(candidates);
  r.stats[Stat::rms] = Number{rms, 0};
  return r;
}

TEST(Labels, ResidualArithmeticTellsABranchFromTheStream) {
  for (const bool branch : {true, false}) {
    std::vector<Record> records = {
        sized("blk.0.in", 12),
        sized("After Attention", branch ? 3 : 12.37, {"blk.0.attn_output", "blk.0.attn_out"}),
        sized("After FFN", branch ? 4 : 13, {"blk.0.ffn_down", "blk.0.ffn_out"}), sized("blk.0.ffn_out", 13)};
    settle_labels(records, "llama");
    EXPECT_EQ(records[0].value, "token_embd");
    EXPECT_EQ(records[1].value, branch ? "blk.0.attn_output" : "blk.0.attn_out");
    EXPECT_EQ(records[2].value, branch ? "blk.0.ffn_down" : "blk.0.ffn_out");
  }
}

}  // namespace
}  // namespace plumb::trace
