#include "engine/embedding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::prompt;
using testing::TinyFile;

std::vector<float> embed(const Model& model, std::vector<int> ids, Pooling pooling, int n) {
  Embedding e(model, {}, std::move(ids), pooling);
  while (!e.read(n)) {
  }
  return e.vector();
}

TEST(Embedding, IsTheLastNormPooledAndOfLengthOne) {
  const TinyFile file{{}};
  const Model model{file.path(), {.threads = 2}};
  const std::vector<int> ids = prompt(20);
  std::vector<double> sum(64), last;
  const auto runner = Runner::make(model, {});
  runner->observe(ids, model.program().find("output_norm"), true, [&](int64_t, std::span<const double> row) {
    for (size_t i = 0; i < row.size(); ++i) sum[i] += row[i];
    last.assign(row.begin(), row.end());
  });
  for (const auto& [pooling, expected] : {std::pair(Pooling::mean, sum), std::pair(Pooling::last, last)}) {
    double squares = 0;
    for (double x : expected) squares += x * x;
    const std::vector<float> found = embed(model, ids, pooling, 100);
    ASSERT_EQ(found.size(), 64u);
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(found[i], float(expected[i] * (1 / std::sqrt(squares))));
    EXPECT_EQ(embed(model, ids, pooling, 7), found);  // how it is cut changes no bit
  }
}

TEST(Embedding, OfATextThatIsTooLongIsRefused) {
  const TinyFile file{{}};
  const Model model{file.path(), {.threads = 1}};
  EXPECT_EQ(testing::code_of([&] { Embedding(model, {.n_ctx = 8}, prompt(9), Pooling::mean); }),
            "context.full");
}

}  // namespace
}  // namespace plumb
