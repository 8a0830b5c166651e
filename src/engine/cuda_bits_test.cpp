// The CUDA backend against the CPU's: the same bits, always with the kernels on a processor, and on the
// device where there is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <numeric>

#include "base/error.h"
#include "cpu/executor.h"
#include "cuda/backend.h"
#include "cuda/device_test.h"
#include "cuda/test_model.h"
#include "engine/cuda_hybrid.h"

namespace plumb {
namespace {

constexpr Rounding kRoundings[] = {Rounding::int8, Rounding::refined, Rounding::int16};

class CudaBits : public CudaDeviceTest {
 protected:
  // Logits after n tokens, fed in pieces of that many.
  std::vector<float> on_cuda(const Program& p, Rounding rounding, KvType kv, int n, int piece) {
    CudaSequence s(p, pool_,
                   CudaOptions{.n_ctx = n + 1,
                               .max_tokens = std::max(piece, 2),
                               .kv_f32 = kv == KvType::f32,
                               .rounding = rounding,
                               .api = api_},
                   [](double) {});
    const std::vector<int> all = test_tokens(n);
    std::vector<float> out;
    for (int t = 0; t < n; t += piece) {
      const auto row =
          s.decode(std::span(all).subspan(size_t(t), size_t(std::min(piece, n - t))), t, t + piece >= n);
      out.assign(row.begin(), row.end());
    }
    return out;
  }

  std::vector<float> on_cpu(const Program& p, Rounding rounding, KvType kv, int n) {
    const CpuWeights weights(p, pool_, {}, [](double) {});
    const Plan plan = make_plan(p, {.max_tokens = n, .rounding = rounding});
    CpuExecutor executor(plan, weights, best_isa(), pool_);
    KvCache cache(p, {kv, kv});
    cache.reserve(n);
    const std::vector<int> ids = test_tokens(n);
    std::vector<int> positions(ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<KvCache*> caches(ids.size(), &cache);
    const int wanted[] = {n - 1};
    executor.run({ids, positions, caches, wanted});
    const auto row = executor.row(p.output, 0);
    return {row.begin(), row.end()};
  }

  static void expect_same(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
    ASSERT_EQ(a.size(), b.size());
    int different = 0;
    for (size_t i = 0; i < a.size(); ++i) different += std::memcmp(&a[i], &b[i], 4) != 0;
    EXPECT_EQ(different, 0) << what << ": of " << a.size() << ", the first " << a[0] << " and " << b[0];
  }

  Pool pool_{1};
};

constexpr Format kQuantised[] = {Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1,
                                 Format::Q8_0, Format::Q4_K, Format::Q5_K, Format::Q6_K};

TEST_P(CudaBits, TokenByTokenAndAsAPromptLogitsAreTheCpusInEveryFormatAndRounding) {
  for (Format format : kQuantised) {
    const TestModel model(format, {});
    const Program p = model.program();
    for (Rounding rounding : kRoundings) {
      const std::string what = std::string(info(format).name) + ", rounding " + std::to_string(int(rounding));
      const std::vector<float> want = on_cpu(p, rounding, KvType::f16, 5);
      expect_same(on_cuda(p, rounding, KvType::f16, 5, 1), want, what + ", one token");
      expect_same(on_cuda(p, rounding, KvType::f16, 5, 5), want, what + ", prompt");
    }
  }
}

TEST_P(CudaBits, PromptsOfAnyNumberOfTokensHaveTheCpusLogits) {  // tiles of one octet, two, more, 64
  for (const TestShape& shape : {TestShape{}, kOddSizes}) {
    const TestModel model(shape.n_layer == 1 ? Format::Q6_K : Format::Q5_1, shape);
    const Program p = model.program();
    for (Rounding rounding : kRoundings) {
      for (int n : {8, 13, 21, 40}) {
        const std::string what = std::to_string(n) + " tokens, rounding " + std::to_string(int(rounding));
        expect_same(on_cuda(p, rounding, KvType::f16, n, n), on_cpu(p, rounding, KvType::f16, n), what);
      }
    }
  }
}

TEST_P(CudaBits, HeadNormsPostNormsWindowsAndOddGroupsGiveTheCpusBits) {
  const TestModel model(Format::Q5_0, kNormsEverywhere);
  const Program p = model.program();
  for (KvType kv : {KvType::f16, KvType::f32}) {
    const std::vector<float> want = on_cpu(p, Rounding::refined, kv, 9);
    expect_same(on_cuda(p, Rounding::refined, kv, 9, 1), want, "one token");
    expect_same(on_cuda(p, Rounding::refined, kv, 9, 4), want, "pieces of four");
  }
}

TEST_P(CudaBits, AcrossSeveralChunksOfKeysLogitsAreTheCpus) {
  const TestModel model(
      Format::Q8_0, {.n_embd = 64, .n_head = 2, .n_head_kv = 1, .head_dim = 32, .n_ff = 64, .n_layer = 2});
  const Program p = model.program();
  const std::vector<float> want = on_cpu(p, Rounding::refined, KvType::f16, 530);
  expect_same(on_cuda(p, Rounding::refined, KvType::f16, 530, 530), want, "at once");
  expect_same(on_cuda(p, Rounding::refined, KvType::f16, 530, 529), want, "the last token alone");
  expect_same(on_cuda(p, Rounding::refined, KvType::f16, 530, 265), want, "in two pieces");
}

TEST_P(CudaBits, WhereverLayersAreCutBetweenDeviceAndCpuLogitsAreTheCpus) {
  const TestModel model(Format::Q8_0, {.n_embd = 64,
                                       .n_head = 2,
                                       .n_head_kv = 1,
                                       .head_dim = 32,
                                       .n_ff = 64,
                                       .n_layer = 3,
                                       .post_norms = true});
  const Program p = model.program();
  const std::vector<int> all = test_tokens(9);
  for (KvType kv : {KvType::f16, KvType::f32}) {
    const std::vector<float> want = on_cpu(p, Rounding::int16, kv, 9);
    for (int layers : {1, 2}) {
      const CudaOptions cuda{.n_ctx = 10,
                             .max_tokens = 4,
                             .kv_f32 = kv == KvType::f32,
                             .rounding = Rounding::int16,
                             .api = api_};
      HybridSequence s(p, pool_, {.layers = layers, .cuda = cuda, .kv = {kv, kv}}, [](double) {});
      s.decode(std::span(all).first(4), 0, false);
      s.decode(std::span(all).subspan(4, 4), 4, false);
      const auto row = s.decode(std::span(all).last(1), 8, true);
      expect_same({row.begin(), row.end()}, want, std::to_string(layers) + " layers on the device");
      const int output_norm = p.nodes[size_t(p.output)].in[0];
      for (Value v :
           {p.find("blk.0.attn_norm"), p.find("blk.0.ffn_out"), p.find("blk.2.attn_out"), output_norm}) {
        const auto seen = s.observe(std::span(all).first(2), 0, v);
        CudaSequence whole(p, pool_, cuda, [](double) {});
        const auto wanted = whole.observe(std::span(all).first(2), 0, v);
        const size_t stride = size_t(row_stride(p.shape(v).size())), size = size_t(p.shape(v).size());
        for (size_t t = 0; t < 2; ++t) {
          const auto a = seen.subspan(t * stride, size), b = wanted.subspan(t * stride, size);
          expect_same({a.begin(), a.end()}, {b.begin(), b.end()}, p.nodes[size_t(v)].name);
        }
      }
    }
  }
}

TEST_P(CudaBits, TokensThatTheDeviceIsGivenEarlyChangeNothingExpectedOrNot) {
  const TestModel model(
      Format::Q8_0, {.n_embd = 64, .n_head = 2, .n_head_kv = 1, .head_dim = 32, .n_ff = 64, .n_layer = 2});
  const Program p = model.program();
  const std::vector<int> all = test_tokens(9), other = {5, 6, 7, 8};
  const std::vector<float> want = on_cpu(p, Rounding::int16, KvType::f16, 9);
  const CudaOptions cuda{.n_ctx = 16, .max_tokens = 4, .rounding = Rounding::int16, .api = api_};
  HybridSequence s(p, pool_, {.layers = 1, .cuda = cuda}, [](double) {});
  const auto piece = [&](size_t first, size_t n) { return std::span(all).subspan(first, n); };
  s.decode(piece(0, 4), 0, false, piece(4, 4));
  s.decode(piece(4, 4), 4, false, piece(8, 1));
  auto row = s.decode(piece(8, 1), 8, true);
  expect_same({row.begin(), row.end()}, want, "as expected");
  s.decode(piece(0, 4), 0, false, other);  // which do not come
  s.decode(piece(4, 4), 4, false, piece(4, 4));
  row = s.decode(piece(8, 1), 8, true);
  expect_same({row.begin(), row.end()}, want, "otherwise");
  s.decode(piece(0, 4), 0, false, piece(4, 4));
  s.observe(other, 4, split_program(p, 1).carried);  // over them
  s.decode(piece(4, 4), 4, false);
  row = s.decode(piece(8, 1), 8, true);
  expect_same({row.begin(), row.end()}, want, "overwritten");
}

TEST(SplitProgram, CutsWhereOneValueCrossesAndNamesIt) {
  const TestModel model(Format::Q8_0, {.n_layer = 3});
  const Program p = model.program();
  const SplitProgram s = split_program(p, 2);
  EXPECT_EQ(s.front.nodes.back().name, "blk.1.ffn_out");
  EXPECT_EQ(s.tail.nodes[0].name, "blk.1.ffn_out");
  EXPECT_EQ(s.tail.nodes[1].name, "blk.2.attn_norm");
  EXPECT_EQ(s.front.nodes.size() + s.tail.nodes.size(), p.nodes.size() + 1);
  EXPECT_EQ(s.tail.nodes[size_t(s.tail.output)].name, p.nodes[size_t(p.output)].name);
}

// The kernels on a processor, on a device with little memory, of which a sequence may take all.
int64_t memory_left = 0;
cuda::Api small_device(int64_t bytes) {
  memory_left = bytes;
  cuda::Api api = *plumb_cuda_api();
  api.open = [](int device, cuda::Context** out, cuda::DeviceInfo* info) {
    const char* error = plumb_cuda_api()->open(device, out, info);
    info->free_bytes = memory_left;
    return error;
  };
  api.memory = [](cuda::Context*, int64_t* free) -> const char* { return *free = memory_left, nullptr; };
  api.allocate = [](cuda::Context* c, int64_t n, void** out) -> const char* {
    if (n > memory_left) return "out of memory";
    memory_left -= n;
    return plumb_cuda_api()->allocate(c, n, out);
  };
  return api;
}

TEST(Fit, TakesTheLayersThatFitAndTheyRunInWhatWasCounted) {
  const TestModel model(Format::Q4_K, {.n_layer = 3});
  const Program p = model.program();
  Pool pool(1);
  CudaOptions options{.n_ctx = 8, .max_tokens = 4};
  const int64_t reserve = int64_t(256) << 20, two = cuda_bytes(split_program(p, 2).front, options);
  EXPECT_LT(two, cuda_bytes(p, options));
  for (const auto& [room, layers] : std::map<int64_t, int>{{0, 0}, {two - 1, 1}, {two, 2}, {two * 9, 3}}) {
    const cuda::Api api = small_device(reserve + room);
    options.api = &api;
    EXPECT_EQ(fit_layers(p, options).layers, layers) << room;
  }
  const cuda::Api api = small_device(two);
  options.api = &api;
  options.self_test = false;  // this device takes nothing back
  HybridSequence s(p, pool, {.layers = 2, .cuda = options}, [](double) {});
  EXPECT_FALSE(s.decode(std::vector<int>{1, 2, 3}, 0, true).empty());
  EXPECT_FALSE(s.decode(std::vector<int>{1}, 3, true).empty());
}

TEST(Fit, TooManyLayersAreRefusedWithWhatTheyTakeWhatIsFreeAndWhatWouldFit) {
  const TestModel model(Format::Q8_0, {.n_layer = 3});
  const Program p = model.program();
  const cuda::Api api = small_device(1 << 20);
  try {
    check_fits(p, {.n_ctx = 8, .max_tokens = 4, .api = &api}, -1);
    FAIL() << "nothing thrown";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "memory.device");
    EXPECT_THAT(e.what(), ::testing::HasSubstr("for 3 of 3 layers and 8 tokens"));
    EXPECT_THAT(e.what(), ::testing::HasSubstr("1.0 MiB free"));
    EXPECT_EQ(e.remedy(), "0 layers would fit: --fit; a smaller -c needs less");
  }
}

INSTANTIATE_TEST_SUITE_P(OnProcessor, CudaBits, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDevice, CudaBits, ::testing::Values(true));

}  // namespace
}  // namespace plumb
