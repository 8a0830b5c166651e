// Likelihoods: what agrees within rounding and printing beats what does not, and rounding is no fault.
#include "trace/likelihood.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "trace/faults.h"
#include "trace/faults_test_support.h"
#include "trace/search.h"
#include "trace/test_support.h"
#include "trace/verdict.h"

namespace plumb::trace {
namespace {

// Statistics of some values as a foreign engine with the given faults prints them.
std::string printed(const Model& model, const FaultSet& faults, const std::vector<int>& ids,
                    Arithmetic profile = {.inputs = Rounded::q8},
                    std::vector<std::string> values = {"blk.0.attn_out", "blk.0.ffn_down", "blk.1.attn_out",
                                                       "blk.1.ffn_out"}) {
  const Variant v = vary(model, faults);
  std::string records;
  const VariantRun run{.tokens = ids, .values = std::move(values), .f64 = false, .profile = profile};
  run_variant(v, model.pool(), run, [&](const VariantRows& rows) {
    double squares = 0, least = INFINITY, most = -INFINITY;
    for (double x : rows.data) squares += x * x, least = std::min(least, x), most = std::max(most, x);
    records += fmt::format(
        R"({}{{"value":"{}","tokens":[0,{}],"stats":{{"rms":"{:.6f}","min":"{:.6f}","max":"{:.6f}"}}}})",
        records.empty() ? "" : ",", rows.value, rows.rows, std::sqrt(squares / double(rows.data.size())),
        least, most);
  });
  return fmt::format(R"({{"plumb_trace":1,"input":{{"tokens":[{}]}},"records":[{}]}})", fmt::join(ids, ","),
                     records);
}

class Likelihoods : public ::testing::Test {
 protected:
  Evidence observed(const Trace& trace) const {
    Evidence e;
    observe(trace, model_.program(), {}, e);
    complete(model_.program(), e);
    return e;
  }
  // Which of `faults` is named where the evidence planted others, if the first is told to be so many nats
  // ahead.
  FaultSet named(const std::string& evidence, const std::vector<FaultSet>& faults, double ahead) const {
    const Trace trace = Trace::parse(evidence, "planted");
    const Evidence e = observed(trace);
    const DiagnoseRequest request{.theirs = {&trace}, .model = model_};
    Simulator s(request, e);
    std::vector<Hypothesis> found;
    for (const FaultSet& f : faults) found.push_back(*s.run(f, model_.program().n_layer));
    found[0].log_likelihood = std::max(found[0].log_likelihood, found[1].log_likelihood + ahead);
    Diagnosis d;
    judge(s, found, d);
    return d.candidates[0].faults;
  }
  testing::TinyFile file_{{.arch = "llama"}};
  Model model_{file_.path(), {}};
  std::vector<int> ids_ = testing::prompt(12);
};

TEST_F(Likelihoods, HealthExplainsHealthyNumbersAndItsOwnRounding) {
  const Trace trace = Trace::parse(printed(model_, {}, ids_), "healthy");
  const Evidence e = observed(trace);
  EXPECT_EQ(e.numbers(), 12);
  const DiagnoseRequest request{.theirs = {&trace}, .model = model_};
  Simulator s(request, e);
  EXPECT_TRUE(s.unexplained(s.healthy(model_.program().n_layer)).empty());
}

TEST_F(Likelihoods, AFurtherFaultThatMovesNoMoreThanRoundingIsNotNamed) {
  const FaultSet one = {{find_fault("G3"), 0}}, two = {{find_fault("G3"), 0}, {find_fault("D2"), 0}};
  EXPECT_EQ(named(printed(model_, one, ids_), {two, one}, 20).size(), 1u);
}

TEST_F(Likelihoods, AFurtherFaultThatIsSeenIsNamed) {
  const FaultSet one = {{find_fault("G3"), 0}}, two = {{find_fault("G3"), 0}, {find_fault("I3"), 0}};
  EXPECT_EQ(named(printed(model_, two, ids_), {two, one}, 0).size(), 2u);
}

TEST_F(Likelihoods, OneStrayValueIsNoFaultWhereAllBehindItAreRightAndALargeOneIs) {
  std::vector<std::string> values;
  for (const Node& n : model_.program().nodes) {
    if (n.name.starts_with("blk.")) values.push_back(n.name);
  }
  const Trace trace = Trace::parse(printed(model_, {}, ids_, {.inputs = Rounded::q8}, values), "healthy");
  const DiagnoseRequest request{.theirs = {&trace}, .model = model_};
  const Evidence right = observed(trace);
  const Simulator first(request, right);
  for (const auto& [far, strays] : {std::pair(15, 0u), std::pair(1000, 1u)}) {
    Evidence e = right;
    Observed& o = e.groups[5];
    for (size_t i = 0; i < o.numbers.size(); ++i)
      o.numbers[i].value = first.health().exact[5].x[i] + far * first.health().scale[5][i];
    Simulator s(request, e);
    EXPECT_EQ(s.unexplained(s.healthy(model_.program().n_layer)).size(), strays) << far;
  }
}

TEST_F(Likelihoods, TheFaultBehindTheNumbersBeatsHealthAndEveryOtherFault) {
  const FaultSet planted = {{find_fault("G3"), 0}};
  const Trace trace = Trace::parse(printed(model_, planted, ids_), "G3");
  const Evidence e = observed(trace);
  const DiagnoseRequest request{.theirs = {&trace}, .model = model_};
  Simulator s(request, e);
  const int all = model_.program().n_layer;
  const double right = s.run(planted, all)->log_likelihood;
  EXPECT_GT(right, s.healthy(all).log_likelihood + 10);
  for (const char* other : {"F1", "F13", "I3", "D8", "G6"})
    EXPECT_GT(right, s.run({{find_fault(other), 0}}, all)->log_likelihood + 5) << other;
}

TEST_F(Likelihoods, RowsOfADeeperLayerAreNotComputedBeforeTheyAreAskedFor) {
  const Trace trace = Trace::parse(printed(model_, {}, ids_), "healthy");
  const Evidence e = observed(trace);
  const DiagnoseRequest request{.theirs = {&trace}, .model = model_};
  Simulator s(request, e);
  const std::optional<Prediction> p = s.exact({}, 0);
  ASSERT_TRUE(p.has_value());
  for (size_t g = 0; g < e.groups.size(); ++g) EXPECT_EQ((*p)[g].computed, e.groups[g].layer == 0);
}

TEST_F(Likelihoods, EvidenceWithoutTokenIdsIsRefused) {
  const Trace trace = Trace::parse(R"({"plumb_trace":1,"records":[]})", "none");
  Evidence e;
  EXPECT_THROW(observe(trace, model_.program(), {}, e), Error);
}

TEST_F(Likelihoods, PredictionsAreKeptAndReadAgain) {
  testing::Folder folder;
  const Trace trace = Trace::parse(printed(model_, {}, ids_), "healthy");
  const Evidence e = observed(trace);
  const DiagnoseRequest request{.theirs = {&trace}, .model = model_, .cache = folder.path};
  Simulator first(request, e);
  first.save();
  const std::optional<Everything> everything = Everything::behind(e, model_.program());
  ASSERT_TRUE(everything);
  const std::string key = fmt::format("000 {} {}", INT64_MAX, SIZE_MAX);
  const int all = model_.program().n_layer;
  const PredictionCache cache(folder.path, model_.file().path(), everything->evidence());
  const std::optional<Prediction> kept = cache.find(key, all);
  ASSERT_TRUE(kept);
  const Prediction selected = everything->select(e, *kept, all, all);
  for (size_t g = 0; g < e.groups.size(); ++g) EXPECT_EQ(selected[g].x, first.health().exact[g].x);
  EXPECT_FALSE(cache.find(key, all + 1));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path)) {
    std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) - 9);
  }
  EXPECT_FALSE(PredictionCache(folder.path, model_.file().path(), everything->evidence()).find("0", 0));
}

TEST_F(Likelihoods, WhatIsSelectedOfEverythingIsWhatARunForTheEvidenceAloneShows) {
  const Trace trace =
      Trace::parse(fmt::format(R"({{"plumb_trace":1,"input":{{"tokens":[{}],"calls":[10,1,1]}},"records":[
      {{"value":"blk.0.attn_q","tokens":[0,10],"stats":{{"rms":"1.0","max":"2.0"}}}},
      {{"value":"blk.1.ffn_out","step":2,"tokens":[11,1],"stats":{{"min":"1.0"}}}},
      {{"value":"logits","scope":"last","step":0,"samples":[[7,"3.0"],[9,"2.0"],[1,"1.0"]]}},
      {{"value":"logits","step":1,"tokens":[10,1],"gauges":["logits_shift"],"samples":[[7,"-3.0"],[9,"-4.0"]]}}]}})",
                               fmt::join(ids_, ",")),
                   "mixed");
  const Evidence e = observed(trace);
  const std::optional<Everything> everything = Everything::behind(e, model_.program());
  ASSERT_TRUE(everything);
  const int all = model_.program().n_layer;
  const Variant v = right_variant(model_);
  for (const int depth : {0, all}) {
    const auto run = [&](const Evidence& of) {
      return predict({.variant = v, .evidence = of, .model = model_, .depth = depth}, model_.pool());
    };
    const Prediction alone = run(e),
                     selected = everything->select(e, run(everything->evidence()), depth, all);
    for (size_t g = 0; g < e.groups.size(); ++g) {
      ASSERT_EQ(selected[g].computed, alone[g].computed) << e.groups[g].value;
      for (size_t i = 0; i < alone[g].x.size(); ++i) EXPECT_NEAR(selected[g].x[i], alone[g].x[i], 1e-6);
      EXPECT_EQ(selected[g].others.size(), alone[g].others.size());
    }
  }
}

TEST_F(Likelihoods, EvidenceOfSingleRowsOrOfChosenIdsHasNoEverything) {
  const auto has = [&](const std::string& input, const std::string& records) {
    const Trace t =
        Trace::parse(fmt::format(R"({{"plumb_trace":1,"input":{{"tokens":[{}]{}}},"records":[{}]}})",
                                 fmt::join(ids_, ","), input, records),
                     "one");
    return Everything::behind(observed(t), model_.program()).has_value();
  };
  EXPECT_FALSE(has("", R"({"value":"blk.0.attn_q","tokens":[3,1],"stats":{"rms":"1.0"}})"));
  EXPECT_FALSE(has(R"(,"prompt":9)", ""));
  EXPECT_TRUE(has("", R"({"value":"blk.0.attn_q","tokens":[0,12],"stats":{"rms":"1.0"}})"));
}

}  // namespace
}  // namespace plumb::trace
