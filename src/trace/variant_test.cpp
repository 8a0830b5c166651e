// Runs of variants: they compute what is asked for and no more, take given rows, and round as they are told.
#include "trace/variant.h"

#include <gtest/gtest.h>

#include "trace/faults_test_support.h"

namespace plumb::trace {
namespace {

using testing::Seen;

std::vector<Seen> run(const Variant& v, Pool& pool, const VariantRun& request) {
  std::vector<Seen> seen;
  run_variant(v, pool, request, [&](const VariantRows& r) {
    seen.push_back({r.call, std::string(r.value), {r.data.begin(), r.data.end()}});
  });
  return seen;
}

class VariantRuns : public ::testing::Test {
 protected:
  testing::TinyFile file_{{.arch = "llama"}};
  Model model_{file_.path(), {}};
  Variant right_ = right_variant(model_);
  std::vector<int> ids_ = testing::prompt(12);
};

TEST_F(VariantRuns, GiveTheLogitsOfTheReferenceInEitherArithmetic) {
  for (const bool f64 : {false, true}) {
    const auto seen = run(right_, model_.pool(), {.tokens = ids_, .values = {"logits"}, .f64 = f64});
    const std::vector<float> logits =
        testing::logits(model_, {.arith = f64 ? Arith::ref64 : Arith::ref32}, ids_);
    ASSERT_EQ(seen.size(), 1u);
    const std::vector<float> last(seen[0].rows.end() - int64_t(logits.size()), seen[0].rows.end());
    EXPECT_TRUE(testing::same_bits(last, logits));
  }
}

TEST_F(VariantRuns, ReadNoWeightBehindTheLastValueAskedFor) {
  for (WeightRef& w : right_.program.weights) {
    if (layer_of(w.name) > 0 || short_name(w.name) == "output_norm")
      w.read = [](const WeightRef& ref, int64_t, float*) { FAIL() << ref.name; };
  }
  EXPECT_EQ(run(right_, model_.pool(), {.tokens = ids_, .values = {"blk.0.ffn_out", "blk.0.attn.kq"}}).size(),
            2u);
}

TEST_F(VariantRuns, TakeGivenRowsInsteadOfComputingThem) {
  const auto all = run(right_, model_.pool(),
                       {.tokens = ids_, .calls = {10, 1, 1}, .values = {"blk.1.ffn_out", "logits"}});
  std::vector<double> given;
  for (const Seen& s : all) {
    if (s.value == "blk.1.ffn_out") given.insert(given.end(), s.rows.begin(), s.rows.end());
  }
  Variant no_start = right_;
  for (WeightRef& w : no_start.program.weights) {
    if (layer_of(w.name) == 0 || layer_of(w.name) == 1)
      w.read = [](const WeightRef& ref, int64_t, float*) { FAIL() << ref.name; };
  }
  const auto rest =
      run(no_start, model_.pool(),
          {.tokens = ids_, .calls = {10, 1, 1}, .values = {"logits"}, .given = {{"blk.1.ffn_out", given}}});
  ASSERT_EQ(rest.size(), 3u);
  for (int call = 0; call < 3; ++call)
    EXPECT_TRUE(testing::same_numbers(rest[size_t(call)].rows, all[size_t(call) * 2 + 1].rows)) << call;
}

TEST_F(VariantRuns, AreTheSameWithKeptWeightsAndWithLastLogitsOnly) {
  DecodedWeights kept(1 << 20);
  for (const bool f64 : {false, true}) {
    const auto plain = run(right_, model_.pool(), {.tokens = ids_, .values = {"logits"}, .f64 = f64});
    const auto fast =
        run(right_, model_.pool(),
            {.tokens = ids_, .values = {"logits"}, .f64 = f64, .last_logits_only = true, .decoded = &kept});
    const size_t n = size_t(model_.n_vocab());
    const std::vector<double> a(plain[0].rows.end() - int64_t(n), plain[0].rows.end());
    const std::vector<double> b(fast[0].rows.end() - int64_t(n), fast[0].rows.end());
    EXPECT_TRUE(testing::same_numbers(a, b));
    EXPECT_EQ(fast[0].rows[0], 0);
  }
}

TEST_F(VariantRuns, ShowScoresAndWeightsWhoseRowsSumToOne) {
  const auto seen =
      run(right_, model_.pool(), {.tokens = ids_, .calls = {11, 1}, .values = {"blk.2.attn.probs"}});
  ASSERT_EQ(seen.size(), 2u);
  ASSERT_EQ(seen[1].rows.size(), 4u * 12);
  for (size_t h = 0; h < 4; ++h) {
    double sum = 0;
    for (size_t u = 0; u < 12; ++u) sum += seen[1].rows[h * 12 + u];
    EXPECT_NEAR(sum, 1, 1e-12);
  }
}

TEST_F(VariantRuns, DifferByTheRoundingOfTheirProfile) {
  const auto exact = run(right_, model_.pool(), {.tokens = ids_, .values = {"logits"}});
  const auto with = [&](const Arithmetic& a) {
    return testing::relative_error(
        exact, run(right_, model_.pool(), {.tokens = ids_, .values = {"logits"}, .profile = a}));
  };
  const double f16 = with({.values = Rounded::f16}), bf16 = with({.values = Rounded::bf16}),
               q8 = with({.inputs = Rounded::q8});
  EXPECT_GT(f16, 1e-5);
  EXPECT_LT(f16, 1e-2);
  EXPECT_GT(bf16, f16);
  EXPECT_GT(q8, f16);
  EXPECT_LT(q8, 0.1);
}

}  // namespace
}  // namespace plumb::trace
