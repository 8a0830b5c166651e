#include "engine/backend_check.h"

#include <gtest/gtest.h>

#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::prompt;
using testing::TinyFile;

TEST(BackendCheck, NamesTheFirstValueThatDiffers) {
  const TinyFile file({.layers = 3});
  const Model model(file.path(), {});
  const Program& p = model.program();
  for (Value wrong : {Value(0), p.find("blk.1.attn_norm"), p.find("blk.2.ffn_down"), p.output}) {
    const auto found = first_disagreement(p, 0.5, [&](Value v) { return v >= wrong ? 1.0 : 0.25; });
    ASSERT_TRUE(found);
    EXPECT_EQ(found->value, wrong);
    EXPECT_EQ(found->difference, 1.0);
  }
  EXPECT_FALSE(first_disagreement(p, 1.0, [](Value) { return 1.0; }));
}

TEST(BackendCheck, FindsNothingBetweenEqualRunsAndTheFirstMatrixBetweenRoundings) {
  const TinyFile file({.format = Format::Q8_0});
  const Model model(file.path(), {});
  const RunnerOptions exact{.rounding = Rounding::int16}, rough{.rounding = Rounding::int8};
  EXPECT_FALSE(first_disagreement(model, exact, exact, prompt(8), 0));
  const auto found = first_disagreement(model, rough, exact, prompt(8), 0);
  ASSERT_TRUE(found);
  EXPECT_EQ(model.program().nodes[size_t(found->value)].name, "blk.0.attn_q");
}

TEST(BackendCheck, ARunnerIsMadeAnewToGoFurtherThanItHasObserved) {
  const TinyFile file({.format = Format::Q8_0});
  const Model model(file.path(), {});
  const RunnerOptions exact{.rounding = Rounding::int16}, rough{.rounding = Rounding::int8};
  // Above the difference of the first layers, below that of the output: an agreeing layer is met.
  const auto whole = first_disagreement(model, rough, exact, prompt(8), 0);
  ASSERT_TRUE(whole);
  EXPECT_NO_THROW(first_disagreement(model, rough, exact, prompt(8), 2 * whole->difference));
}

}  // namespace
}  // namespace plumb
