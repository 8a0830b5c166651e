// Two runs of tiny random models: honest roundings are noise, a changed operation is found where it is.
#include "trace/diff.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/half.h"
#include "trace/recorder.h"
#include "trace/replay.h"
#include "trace/test_support.h"
#include "trace/writer.h"

namespace plumb::trace {
namespace {

using testing::code_of;
using testing::Folder;
using testing::prompt;
using testing::TinyFile;

std::string kind(const std::string& value) { return value.substr(value.rfind('.') + 1); }

class DiffOf : public ::testing::TestWithParam<const char*> {
 protected:
  std::string record(const char* name, const RunnerOptions& options, Level level, int steps = 0) {
    RunRequest r{.tokens = prompt(9), .steps = steps, .level = level, .options = options};
    r.engine.set("name", "plumb"), r.durable = false, r.path = folder.path + "/" + name;
    record_run(model, r);
    return r.path;
  }

  // A full trace in which the rows of `value` are other numbers, and nothing downstream is.
  std::string changed(const std::string& from, const std::string& value,
                      const std::function<double(size_t i, double x)>& other, const char* name = "changed") {
    const Trace t = Trace::open(from);
    Writer w(folder.path + "/" + name);
    for (const Record& r : t.records()) {
      std::vector<float> x;
      for (double v : t.rows(r, 0, r.tokens)) x.push_back(float(r.value == value ? other(x.size(), v) : v));
      Record copy = r;
      copy.shard = 0, copy.tensor.clear();
      w.add(copy, x);
    }
    Json header;
    for (const char* part : {"plumb_trace", "model", "input"}) header.set(part, *t.header().json.find(part));
    w.finish(header);
    return folder.path + "/" + name;
  }

  const TinyFile file{{.arch = GetParam(), .format = Format::Q8_0}};
  const Model model{file.path(), {.threads = 2}};
  const Folder folder;
};

TEST_P(DiffOf, OurRoundingsAreNoiseAtEveryLevelAndTheirProfileIsRecognised) {
  const std::pair<const char*, RunnerOptions> runs[] = {
      {"f32", {.arith = Arith::ref32}},
      {"f32, sums from the end", {.arith = Arith::ref32, .arithmetic = {.sums_from_end = true}}},
      {"q8 refined", {}},
      {"bf16", {.arith = Arith::ref32, .nodes = NodeRounding::bf16}},
  };
  for (const auto& [profile, options] : runs) {
    for (Level level : {Level::full, Level::sketch, Level::stats}) {
      const Trace t = Trace::open(record("theirs", options, level, 2));
      const Diff d = diff({.theirs = t, .model = &model, .cache = folder.path + "/cache"});
      EXPECT_EQ(d.verdict, Diff::Verdict::same) << profile << " level " << int(level) << " "
                                                << (d.first < 0 ? "" : d.values[size_t(d.first)].value);
      EXPECT_EQ(d.tokens, 11);
      EXPECT_EQ(d.replayed, level == Level::full);
      if (level == Level::full) {
        EXPECT_EQ(d.profile, profile);
        EXPECT_EQ(d.values.size(), model.program().nodes.size());
      }
    }
  }
}

TEST_P(DiffOf, AChangedValueIsNamedWithItsFactorAndReplayMarksItAndItsReaders) {
  const std::string right = record("right", {.arith = Arith::ref64}, Level::full);
  const std::string name = "blk.1.ffn_norm";
  const Trace theirs = Trace::open(changed(right, name, [](size_t, double x) { return 1.5 * x; })),
              ours = Trace::open(right);
  const Diff d = diff({.theirs = theirs, .model = &model, .cache = folder.path + "/cache"});
  EXPECT_EQ(d.verdict, Diff::Verdict::named);
  EXPECT_EQ(d.reason, name + " is ours times 1.5");
  std::vector<std::string> lit;
  for (int i : d.lit) lit.push_back(kind(d.operations[size_t(i)].difference.value));
  EXPECT_EQ(lit, (std::vector<std::string>{"ffn_norm", "ffn_gate", "ffn_up"}));
  const Diff without = diff({.theirs = theirs, .ours = &ours});
  ASSERT_GE(without.first, 0);
  EXPECT_EQ(without.values[size_t(without.first)].value, name);
  EXPECT_FALSE(without.replayed);
}

// An entry of ggml's table of GELU, made by a tanhf whose last bit is off by `ulps`.
double table_entry(float x, int ulps) {
  const float g = half_to_float(float_to_half(x));
  float t = std::tanh(0.79788456f * g * (1 + 0.044715f * g * g));
  for (; ulps > 0; --ulps) t = std::nextafter(t, 2.0f);
  return double(half_to_float(float_to_half(0.5f * g * (1 + t))));
}

// A value whose entry that bit rounds to the next f16.
float on_the_edge() {
  for (uint16_t bits = 0xc800; bits > 0x8000; --bits) {  // -8 and up
    const float x = half_to_float(bits);
    if (std::abs(table_entry(x, 0)) > 1e-3 && table_entry(x, 0) != table_entry(x, 1)) return x;
  }
  return 0;
}

TEST_P(DiffOf, WhatAnotherEngineDoesByDesignIsNamedAndNoFault) {
  const std::string right = record("right", {.arith = Arith::ref64}, Level::full), name = "blk.1.ffn_act";
  const float edge = on_the_edge();
  ASSERT_NE(edge, 0);
  const std::string edged =
      changed(right, "blk.1.ffn_gate", [&](size_t i, double x) { return i == 5 ? edge : x; }, "edged");
  std::vector<double> gate, up;
  const Trace t = Trace::open(edged);
  for (const Record& r : t.records()) {
    if (r.value == "blk.1.ffn_gate") gate = t.rows(r, 0, r.tokens);
    if (r.value == "blk.1.ffn_up") up = t.rows(r, 0, r.tokens);
  }
  const Trace theirs = Trace::open(
      changed(edged, name, [&](size_t i, double) { return table_entry(float(gate[i]), 1) * up[i]; }));
  const Diff d = diff({.theirs = theirs, .model = &model, .cache = folder.path + "/cache"});
  const bool gelu = std::string(GetParam()) == "gemma3";  // the other has SiLU: there this is a fault
  for (size_t i = 0; i < d.operations.size(); ++i) {
    const bool at = d.operations[i].difference.value == name;
    EXPECT_EQ(!d.operations[i].habit.empty(), at && gelu) << d.operations[i].difference.value;
    const bool lit = std::count(d.lit.begin(), d.lit.end(), int(i)) > 0;
    EXPECT_TRUE(!at || lit != gelu);
  }
}

TEST_P(DiffOf, LargeScoresMakeRoundingToHalfCount) {
  const std::string right = record("right", {.arith = Arith::ref64}, Level::full);
  const auto error = [&](const std::string& path, bool bf16) {
    const Trace t = Trace::open(path);
    const Rows rows(t);
    const std::vector<int> tokens = prompt(9);
    for (const Replayed& r : replay(model, rows, tokens, 9)) {
      if (r.difference.value == "blk.1.attn") return rounding_error(model, rows, tokens, 9, r, bf16);
    }
    return -1.0;
  };
  const double usual = error(right, false);
  EXPECT_GT(usual, 0);
  EXPECT_LT(usual, 1e-2);
  EXPECT_GT(error(changed(right, "blk.1.q_rope", [](size_t, double x) { return 8 * x; }), false),
            1.5 * usual);
  EXPECT_GT(error(right, true), usual) << "scores have fewer bits";
}

INSTANTIATE_TEST_SUITE_P(Architectures, DiffOf, ::testing::Values("llama", "gemma3"),
                         [](const auto& p) { return std::string(p.param); });

TEST(FirstExcess, OfSummariesIsPlacedBeforeTheFirstValueAboveOneWhereOthersAreLargeTogether) {
  const auto list = [](std::initializer_list<double> scores, const char* from) {
    std::vector<Difference> out;
    for (double s : scores) out.emplace_back().score = s, out.back().noise = 4 * s, out.back().from = from;
    return out;
  };
  EXPECT_EQ(first_excess(list({0.2, 0.1, 0.9, 0.8, 0.9, 2}, "stats")), 2);
  EXPECT_EQ(first_excess(list({0.2, 0.1, 0.9, 0.8, 0.9, 2}, "full")), 5) << "elements tell it exactly";
  EXPECT_EQ(first_excess(list({0.2, 0.1, 0.3, 0.2, 0.1, 2}, "stats")), 5);
  EXPECT_EQ(first_excess(list({0.2, 0.1, 0.9, 0.8, 0.9, 1}, "stats")), -1) << "nothing is too much";
}

TEST(Comparison, NumbersThatNoKernelComputesWithAreZero) {
  const auto error = [](std::vector<double> theirs, std::vector<double> ours) {
    Comparison c("x", 1);
    c.add(0, theirs, ours);
    return c.result().error;
  };
  EXPECT_LT(error({0, 0}, {3e-39, -2e-39}), 1e-7);  // llama.cpp's int8 behind a norm of subnormal weights
  EXPECT_LT(error({0, 1e-38}, {7.5e-38, 0}), 1e-6);
  EXPECT_DOUBLE_EQ(error({2e-20, 0}, {1e-20, 0}), 1);
  EXPECT_GT(error({1e-3, 0}, {0, 0}), 1e20);
  EXPECT_EQ(error({0, 0}, {0, 0}), 0);
}

TEST(Diff, RowsThatTwoRecordsHoldAreRefused) {
  const Trace t = Trace::parse(R"({"plumb_trace":1,"records":[
    {"value":"x","tokens":[0,2],"shape":[2,1],"data":[1,2]},{"value":"x","tokens":[1,1],"shape":[1,1],"data":[2]}]})",
                               "t");
  EXPECT_EQ(code_of([&] { diff({.theirs = t, .ours = &t}); }), "trace.overlap");
}

TEST(Diff, ARowOfZerosIsTheSameAsItself) {
  const Trace t = Trace::parse(R"({"plumb_trace":1,"records":[{"value":"x","tokens":[0,2],"shape":[2,1],
    "stats":{"rms":0.7,"min":0.0,"max":1.0},"rms_per_token":[0.0,1.0]}]})",
                               "t");
  EXPECT_EQ(diff({.theirs = t, .ours = &t}).verdict, Diff::Verdict::same);
}

TEST(Diff, WithoutACommonValueTheEvidenceIsUnusable) {
  const auto one = [](const std::string& name) {
    return Trace::parse(R"({"plumb_trace":1,"records":[{"value":")" + name +
                            R"(","tokens":[0,1],"shape":[1,1],"data":[1]}]})",
                        "t");
  };
  const Trace a = one("x"), b = one("y");
  EXPECT_EQ(diff({.theirs = a, .ours = &b}).verdict, Diff::Verdict::unusable);
  EXPECT_EQ(diff({.theirs = a, .ours = &a}).verdict, Diff::Verdict::same);
}

TEST(Patterns, StarsAndQuestionMarksStandForTextAndOneCharacter) {
  EXPECT_TRUE(matches("blk.*.attn_?", "blk.12.attn_q"));
  EXPECT_FALSE(matches("blk.*.attn_?", "blk.12.attn_qq"));
  EXPECT_TRUE(matches("*", ""));
  EXPECT_TRUE(matches("*a*b*", "xxaybz"));
  EXPECT_FALSE(matches("*a*b", "xxaybz"));
}

}  // namespace
}  // namespace plumb::trace
