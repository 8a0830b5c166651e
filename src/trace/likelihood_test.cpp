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

namespace plumb::trace {
namespace {

// Statistics of some values as a foreign engine with the given faults prints them.
std::string printed(const Model& model, const FaultSet& faults, const std::vector<int>& ids) {
  const Variant v = vary(model, faults);
  std::string records;
  const VariantRun run{.tokens = ids,
                       .values = {"blk.0.attn_out", "blk.0.ffn_down", "blk.1.attn_out", "blk.1.ffn_out"},
                       .f64 = false,
                       .profile = {.inputs = Rounded::q8}};
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
  const PredictionCache cache(folder.path, model_.file().path(), e);
  const Prediction* kept = cache.find(fmt::format("{} 000 {}", model_.program().n_layer, INT64_MAX));
  ASSERT_NE(kept, nullptr);
  for (size_t g = 0; g < e.groups.size(); ++g) EXPECT_EQ((*kept)[g].x, first.health().exact[g].x);
  for (const auto& entry : std::filesystem::directory_iterator(folder.path)) {
    std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) - 9);
  }
  EXPECT_EQ(PredictionCache(folder.path, model_.file().path(), e).find("0"), nullptr);
}

}  // namespace
}  // namespace plumb::trace
