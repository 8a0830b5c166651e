// A model split among several devices has the bits of one, whatever its order of addition: always with the
// kernels on a processor, and on the device where there is one, which is named more than once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "cuda/backend.h"
#include "cuda/device_test.h"
#include "cuda/test_model.h"
#include "engine/cuda_hybrid.h"
#include "engine/sequences.h"
#include "engine/test_support.h"

namespace plumb {
namespace {

using testing::code_of;
using testing::prompt;
using testing::same_bits;
using testing::TinyFile;

constexpr TestShape kShape = {
    .n_embd = 256, .n_head = 8, .n_head_kv = 4, .head_dim = 32, .n_ff = 256, .n_vocab = 160};

class CudaRanks : public CudaDeviceTest {
 protected:
  // The processor stands in for four devices.
  std::vector<int> devices(int ranks) const {
    std::vector<int> all;
    all.reserve(size_t(ranks));
    for (int r = 0; r < ranks; ++r) all.push_back(GetParam() ? 0 : r);
    return all;
  }

  // Logits of every token but the first, fed in pieces of that many; the last is fed alone.
  std::vector<float> logits(const Program& p, CudaOptions options, int n, int piece) {
    options.n_ctx = n + 1, options.max_tokens = std::max(piece, 2), options.api = api_;
    CudaSequence s(p, pool_, options, [](double) {});
    const std::vector<int> ids = test_tokens(n);
    std::vector<float> out;
    for (int t = 0; t < n;) {
      const int count = t == n - 1 ? 1 : std::min(piece, n - 1 - t);
      const auto row = s.decode(std::span(ids).subspan(size_t(t), size_t(count)), t, true);
      out.insert(out.end(), row.begin(), row.end()), t += count;
    }
    return out;
  }

  void expect_same(const Program& p, const CudaOptions& options, int n, int piece, const std::string& what) {
    const std::vector<float> want = logits(p, options, n, piece);
    for (int ranks : GetParam() ? std::vector{2, 3, 4} : std::vector{3}) {  // fibers take their time
      CudaOptions several = options;
      several.devices = devices(ranks);
      EXPECT_TRUE(same_bits(logits(p, several, n, piece), want))
          << what << " in pieces of " << piece << " on " << ranks;
    }
  }

  Pool pool_{1};
};

TEST_P(CudaRanks, HaveTheLogitsOfOneDeviceInEveryFormat) {
  for (Format format : {Format::F32, Format::F16, Format::BF16, Format::Q4_0, Format::Q4_1, Format::Q5_0,
                        Format::Q5_1, Format::Q8_0, Format::Q4_K, Format::Q5_K, Format::Q6_K}) {
    const bool some = format == Format::F16 || format == Format::Q4_0 || format == Format::Q6_K;
    if (!GetParam() && !some) continue;
    const TestModel model(format, kShape);
    const Program p = model.program();
    for (bool f16 : {false, true}) {
      const CudaOptions options{.f16 = f16, .rounding = Rounding::int16};
      const std::string what = std::string(info(format).name) + (f16 ? ", f16" : "");
      expect_same(p, options, 2, 1, what);
      expect_same(p, options, 4, 3, what);
    }
  }
}

TEST_P(CudaRanks, WithNormsOfHeadsAndAfterBlocksEveryRoundingAndUnevenParts) {
  TestShape shape = kNormsEverywhere;
  shape.n_head = 12, shape.n_head_kv = 4;
  if (!GetParam()) shape.n_layer = 1;
  const TestModel model(Format::Q5_0, shape);
  const Program p = model.program();
  for (const CudaOptions& options :
       {CudaOptions{.rounding = Rounding::int8}, CudaOptions{.rounding = Rounding::refined},
        CudaOptions{.kv_f32 = true, .rounding = Rounding::int16}, CudaOptions{.kv_f32 = true, .f32 = true},
        CudaOptions{.f16 = true, .rounding = Rounding::int16}}) {
    const std::string what = "rounding " + std::to_string(int(options.rounding));
    expect_same(p, options, 3, 1, what);
    expect_same(p, options, 6, 5, what);
  }
}

TEST_P(CudaRanks, OneTokensSumsKeepTheOrderOfTheWholeMatrix) {
  // Parts of the large matrices are taken by fewer teams of warps than the whole; rows of several windows.
  const TestModel model(
      Format::Q4_0,
      {.n_embd = 1536, .n_head = 8, .n_head_kv = 4, .head_dim = 16, .n_ff = 1024, .n_vocab = 4096});
  expect_same(model.program(), {.f16 = true, .rounding = Rounding::int16}, 2, 1, "wide");
}

TEST_P(CudaRanks, AcrossSeveralPagesOfKeys) {
  const TestModel model(Format::Q8_0,
                        {.n_embd = 64, .n_head = 4, .n_head_kv = 2, .head_dim = 32, .n_ff = 64});
  const Program p = model.program();
  for (bool f16 : {false, true}) {
    CudaOptions options{.f16 = f16, .rounding = Rounding::int16};
    const std::vector<float> want = logits(p, options, 258, 257);
    options.devices = devices(2);
    EXPECT_TRUE(same_bits(logits(p, options, 258, 257), want)) << f16;
  }
}

TEST_P(CudaRanks, ObservedValuesAreWholeAndLayersMayBeLeftToTheCpu) {
  TestShape shape = kShape;
  shape.n_layer = 2;
  const TestModel model(Format::Q8_0, shape);
  const Program p = model.program();
  const std::vector<int> ids = {3, 40, 77};
  CudaOptions options{.n_ctx = 8, .max_tokens = 4, .rounding = Rounding::int16, .api = api_};
  CudaSequence one(p, pool_, options, [](double) {});
  const std::span<const float> row = one.decode(ids, 0, true);
  const std::vector<float> want(row.begin(), row.end());
  CudaOptions several = options;
  several.devices = devices(2);
  CudaSequence two(p, pool_, several, [](double) {});
  for (const char* name : {"blk.0.attn_q", "blk.0.attn_out", "blk.0.ffn_act", "blk.1.attn_norm"}) {
    const Value v = p.find(name);
    const std::span<const float> a = one.observe(ids, 0, v), b = two.observe(ids, 0, v);
    const size_t size = size_t(p.shape(v).size()), stride = size_t(row_stride(int64_t(size)));
    for (size_t t = 0; t < ids.size(); ++t)
      EXPECT_TRUE(same_bits(a.subspan(t * stride, size), b.subspan(t * stride, size))) << name;
  }
  HybridSequence hybrid(p, pool_, {.layers = 1, .cuda = several}, [](double) {});
  EXPECT_TRUE(same_bits(hybrid.decode(ids, 0, true), want));
}

// Answers together, a prompt beside them, pages shared and copied.
TEST_P(CudaRanks, SequencesThatSharePassesHaveTheBitsOfOneDevice) {
  for (bool f16 : {false, true}) {
    const TinyFile file({.format = Format::Q4_0, .layers = GetParam() ? 3 : 1});
    const Model model(file.path(), {.threads = 2});
    using Rows = std::vector<std::vector<float>>;
    const auto run = [&](const std::vector<int>& on) {
      const RunnerOptions options{.backend = Backend::cuda,
                                  .devices = on,
                                  .n_ctx = 512,
                                  .n_ubatch = 64,
                                  .rounding = Rounding::int16,
                                  .cuda_f16 = f16,
                                  .cuda_api = api_};
      Sequences s(model, options, 3);
      Rows rows;
      const auto pass = [&](const std::vector<Sequences::Piece>& pieces) {
        s.decode(pieces,
                 [&](int, int64_t, std::span<const float> l) { rows.emplace_back(l.begin(), l.end()); });
      };
      const std::vector<int> a = prompt(262, 1), b = prompt(20, 2), next = prompt(8, 3);
      const auto at = [&](size_t i) { return std::span(next).subspan(i, 1); };
      pass({{0, a}, {1, b}});
      pass({{0, at(0)}, {1, at(1)}});
      s.start_from(2, s.cache(0), 260);
      pass({{0, at(2)}, {2, at(3)}, {1, at(4)}});
      pass({{0, at(5)}, {2, at(6)}, {1, at(7)}});
      return rows;
    };
    const Rows want = run({0}), found = run(devices(2));
    ASSERT_EQ(found.size(), want.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(same_bits(found[i], want[i])) << i;
  }
}

TEST_P(CudaRanks, TakeLessOfEachDeviceThanTheWholeModel) {
  const TestModel model(Format::Q8_0, kShape);
  const Program p = model.program();
  const CudaOptions one{.n_ctx = 8, .max_tokens = 4}, two{.devices = {0, 1}, .n_ctx = 8, .max_tokens = 4},
      twice{.devices = {0, 0}, .n_ctx = 8, .max_tokens = 4};
  EXPECT_LT(cuda_bytes(p, two), cuda_bytes(p, one));
  EXPECT_GT(cuda_bytes(p, twice), cuda_bytes(p, two));
}

TEST_P(CudaRanks, WhatCannotBeSplitIsRefused) {
  const TestModel model(Format::Q8_0, kShape);
  const Program p = model.program();
  const auto code = [&](std::vector<int> on, const cuda::Api* api) {
    return code_of(
        [&] { CudaSequence(p, pool_, {.devices = std::move(on), .n_ctx = 8, .api = api}, [](double) {}); });
  };
  EXPECT_EQ(code(devices(5), api_), "split.heads");
  EXPECT_EQ(code({0, 99}, api_), "usage.device");
  static const cuda::Api* real;
  real = api_;
  cuda::Api apart = *api_;
  apart.reach = [](cuda::Context*, cuda::Context*) -> const char* { return "they lie apart"; };
  EXPECT_EQ(code({0, 0}, &apart), "usage.device");
  cuda::Api unlike = *api_;
  unlike.open = [](int device, cuda::Context** out, cuda::DeviceInfo* info) {
    static int count = 0;
    const char* error = real->open(device, out, info);
    info->processors += count++;
    return error;
  };
  EXPECT_EQ(code({0, 0}, &unlike), "usage.device");
}

INSTANTIATE_TEST_SUITE_P(OnProcessor, CudaRanks, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDevice, CudaRanks, ::testing::Values(true));

}  // namespace
}  // namespace plumb
