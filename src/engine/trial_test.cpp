// A device that computes wrongly is found at load, named, and refused or replaced by the CPU.
#include "engine/trial.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cuda/api.h"
#include "engine/sequences.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::same_bits;
using testing::TinyFile;

int layers_of(const Program& p) {
  int n = 0;
  for (const Node& node : p.nodes) n += std::holds_alternative<Attention>(node.op);
  return n;
}

TEST(SelfTest, TakesOneLayerOfEachKind) {
  const TinyFile same({.arch = "llama", .layers = 5}), windows({.arch = "gemma3", .layers = 7});
  const Model llama(same.path(), {}), gemma(windows.path(), {});
  const Program one = one_layer_of_each_kind(llama.program()), two = one_layer_of_each_kind(gemma.program());
  EXPECT_EQ(layers_of(one), 1);
  EXPECT_EQ(layers_of(two), 2);  // one that sees a window, and one that sees all
  EXPECT_EQ(one.output, int(one.nodes.size()) - 1);
  EXPECT_EQ(two.nodes[size_t(two.output)].name, gemma.program().nodes[size_t(gemma.program().output)].name);
}

// Kernels on a processor whose matrix kernels for more than kFewTokens tokens do nothing.
cuda::Api broken() {
  cuda::Api api = *plumb_cuda_api();
  api.linear = [](cuda::Context* c, const cuda::LinearOp& op) -> const char* {
    return op.n > cuda::kFewTokens ? nullptr : plumb_cuda_api()->linear(c, op);
  };
  return api;
}

TEST(SelfTest, AWrongKernelIsNamedByItsFirstValueAndRefused) {
  const TinyFile file({.format = Format::Q4_0});
  const Model model(file.path(), {.threads = 2});
  const cuda::Api api = broken();
  RunnerOptions options{.backend = Backend::cuda, .rounding = Rounding::int16, .cuda_api = &api};
  try {
    Runner::make(model, options);
    FAIL() << "nothing thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "cuda.selftest");
    EXPECT_THAT(e.found(), ::testing::StartsWith("blk.0.attn_q apart"));
  }
  EXPECT_EQ(code_of([&] { Sequences(model, options, 2); }), "cuda.selftest");
  options.device_layers = 2;
  EXPECT_EQ(code_of([&] { Runner::make(model, options); }), "cuda.selftest");
}

// Scores so large that the softmax amplifies what f16 rounds away, as it does 8 bits' rounding.
TEST(SelfTest, ANetworkThatAmplifiesRoundingIsNotCalledWrong) {
  for (const uint64_t seed : {1, 2}) {
    const TinyFile file({.format = Format::Q8_0, .seed = seed, .layers = 1, .matrix_size = 8});
    const Model model(file.path(), {.threads = 2});
    EXPECT_NO_THROW(Runner::make(model, {.backend = Backend::cuda,
                                         .rounding = Rounding::int16,
                                         .cuda_f16 = true,
                                         .cuda_api = plumb_cuda_api()}))
        << seed;
  }
}

TEST(SelfTest, WithFallbackTheCpuAnswersAndItIsSaid) {
  const TinyFile file({.format = Format::Q4_0});
  const Model model(file.path(), {.threads = 2});
  const cuda::Api api = broken();
  std::string said;
  RunnerOptions options{.backend = Backend::cuda,
                        .fallback = true,
                        .note = [&](const std::string& text) { said = text; },
                        .rounding = Rounding::int16,
                        .cuda_api = &api};
  const std::vector<float> want = testing::logits(model, {.rounding = Rounding::int16}, prompt(40));
  EXPECT_TRUE(same_bits(testing::logits(model, options, prompt(40)), want));
  EXPECT_THAT(said, ::testing::HasSubstr("on the CPU instead"));
  EXPECT_THAT(said, ::testing::HasSubstr("blk.0.attn_q"));
  Sequences s(model, options, 2);
  const std::vector<int> text = prompt(40);
  s.decode(std::vector<Sequences::Piece>{{1, text}},
           [&](int, int64_t, std::span<const float> row) { EXPECT_TRUE(same_bits(row, want)); });
}

}  // namespace
}  // namespace plumb
