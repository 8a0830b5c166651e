// Whole plans against the reference in f32: always with the kernels on a processor, and on the device where
// there is one.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "cuda/backend.h"
#include "cuda/device_test.h"
#include "cuda/test_model.h"
#include "program/reference.h"

namespace plumb {
namespace {

const int kTokens[] = {3, 17, 150, 0, 99, 64};

class CudaModel : public CudaDeviceTest {
 protected:
  std::unique_ptr<CudaSequence> sequence(const Program& p, bool kv_f32 = true) {
    return std::make_unique<CudaSequence>(
        p, pool_, CudaOptions{.n_ctx = 16, .max_tokens = 8, .kv_f32 = kv_f32, .api = api_}, [](double) {});
  }

  std::unique_ptr<CudaSequence> halves(const Program& p, int max_tokens) {
    return std::make_unique<CudaSequence>(
        p, pool_,
        CudaOptions{
            .n_ctx = 16, .max_tokens = max_tokens, .f16 = true, .rounding = Rounding::int16, .api = api_},
        [](double) {});
  }

  // Logits after all tokens, fed in pieces of that many.
  std::vector<float> logits(CudaSequence& s, size_t piece) {
    const std::span<const int> all(kTokens);
    std::vector<float> out;
    for (size_t t = 0; t < all.size(); t += piece) {
      const auto row = s.decode(all.subspan(t, std::min(piece, all.size() - t)), int64_t(t), true);
      out.assign(row.begin(), row.end());
    }
    return out;
  }

  std::vector<float> reference(const Program& p) {
    Reference<float> r(p, pool_);
    std::vector<float> out;
    r.run(kTokens, p.output, [&](Value v, std::span<const float> rows) {
      if (v == p.output) out.assign(rows.end() - p.shape(v).size(), rows.end());
    });
    return out;
  }

  static double error(const std::vector<float>& a, const std::vector<float>& b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      difference += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
    }
    return std::sqrt(difference / size);
  }

  // Prompts in halves.
  void halves_equal_reference();
  void splits_give_same_bits();

  Pool pool_{1};
};

// numerics.md, section 3: 3 * 0.0055 sqrt(3 (ln 2L + 0.6)) for int8 activations. Float weights see only the
// order of addition in decode, and f16 roundings of weights and activations, 0.02 % rms each, in the
// many-token path.
double bound(Format format, int layers, bool many) {
  const double roundings = std::sqrt(3 * (std::log(2 * layers) + 0.6));
  if (!many && info(format).block == 1) return 1e-5 * roundings;
  return 3 * 0.0055 * roundings;
}

constexpr Format kFormats[] = {Format::F32,  Format::F16,  Format::BF16, Format::Q4_0,
                               Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0,
                               Format::Q4_K, Format::Q5_K, Format::Q6_K};

// Two roundings to f16 of 2^-12 each, rms 0.014 %, per matrix: less than a tenth of int8's bound.
void CudaModel::halves_equal_reference() {
  for (Format format : kFormats) {
    const TestModel model(format, {});
    const Program p = model.program();
    const auto s = halves(p, 8);
    EXPECT_LT(error(logits(*s, 6), reference(p)), bound(format, 1, true) / 10) << info(format).name;
  }
}

void CudaModel::splits_give_same_bits() {
  const TestModel plain(Format::Q4_K, {}), odd(Format::Q5_1, kOddSizes),
      norms(Format::Q5_0, kNormsEverywhere);
  for (const TestModel* m : {&plain, &odd, &norms}) {
    const Program p = m->program();
    const auto a = halves(p, 8), b = halves(p, 8), c = halves(p, 3);
    const std::vector<float> whole = logits(*a, 6);
    EXPECT_LT(error(whole, reference(p)), bound(Format::Q4_K, 3, true) / 10);
    EXPECT_EQ(logits(*b, 3), whole);
    EXPECT_EQ(logits(*c, 2), whole);
  }
}

TEST_P(CudaModel, OneTokenAtATimeEqualsTheReferenceWithinTheBoundInEveryFormat) {
  for (Format format : kFormats) {
    const TestModel model(format, {});
    const Program p = model.program();
    const auto s = sequence(p);
    EXPECT_LT(error(logits(*s, 1), reference(p)), bound(format, 1, false)) << info(format).name;
  }
}

TEST_P(CudaModel, APromptAtOnceEqualsTheReferenceWithinTheBoundInEveryFormat) {
  for (Format format : kFormats) {
    const TestModel model(format, {});
    const Program p = model.program();
    const auto s = sequence(p);
    EXPECT_LT(error(logits(*s, 6), reference(p)), bound(format, 1, true)) << info(format).name;
  }
}

TEST_P(CudaModel, InF32OnlyTheOrderOfAdditionDiffersFromTheReference) {
  for (Format format : kFormats) {
    const TestModel model(format, {});
    const Program p = model.program();
    CudaSequence s(p, pool_,
                   CudaOptions{.n_ctx = 16, .max_tokens = 8, .kv_f32 = true, .f32 = true, .api = api_},
                   [](double) {});
    const std::vector<float> want = reference(p), together = logits(s, 6);
    EXPECT_LT(error(together, want), bound(Format::F32, 1, false)) << info(format).name;
    EXPECT_EQ(logits(s, 1), together) << info(format).name;
  }
}

TEST_P(CudaModel, SplitsOfAPromptIntoPiecesOfSeveralTokensGiveTheSameBits) {
  const TestModel model(Format::Q4_K, {});
  const Program p = model.program();
  const auto a = sequence(p, false), b = sequence(p, false), c = sequence(p, false);
  const std::vector<float> whole = logits(*a, 6);
  EXPECT_EQ(logits(*b, 3), whole);
  EXPECT_EQ(logits(*c, 2), whole);
}

TEST_P(CudaModel, OneTokenAtATimeInItsOwnOrderEqualsTheReferenceWithinTheBoundInEveryFormat) {
  for (Format format : kFormats) {
    const TestModel model(format, {});
    const Program p = model.program();
    const auto s = halves(p, 8);
    EXPECT_LT(error(logits(*s, 1), reference(p)), bound(format, 1, true) / 10) << info(format).name;
  }
}

TEST_P(CudaModel, APromptInHalvesEqualsTheReferenceWithinTheBoundInEveryFormat) { halves_equal_reference(); }

TEST_P(CudaModel, SplitsOfAPromptInHalvesGiveTheSameBits) { splits_give_same_bits(); }

TEST_P(CudaModel, HeadNormsPostNormsWindowsAndOddGroupsEqualTheReference) {
  const TestModel model(Format::Q5_0, kNormsEverywhere);
  const Program p = model.program();
  const auto a = sequence(p), b = sequence(p, false);
  const std::vector<float> expected = reference(p);
  EXPECT_LT(error(logits(*a, 1), expected), bound(Format::Q5_0, 3, false));
  EXPECT_LT(error(logits(*b, 4), expected), bound(Format::Q5_0, 3, true));
}

TEST_P(CudaModel, AnObservedValueEqualsTheReference) {
  const TestModel model(Format::Q8_0, {});
  const Program p = model.program();
  const Value value = p.find("blk.0.attn_out");
  const auto s = sequence(p);
  const auto rows = s->observe(kTokens, 0, value);
  std::vector<float> last(rows.begin() + 5 * row_stride(256), rows.begin() + 5 * row_stride(256) + 256),
      expected;
  Reference<float> r(p, pool_);
  r.run(kTokens, value, [&](Value v, std::span<const float> all) {
    if (v == value) expected.assign(all.end() - 256, all.end());
  });
  EXPECT_LT(error(last, expected), bound(Format::Q8_0, 1, true));
}

TEST_P(CudaModel, AFormatWithoutKernelsIsRefusedByName) {
  const TestModel model(Format::IQ4_NL, {});
  const Program p = model.program();
  try {
    sequence(p);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), "cuda.unsupported");
    EXPECT_EQ(e.found(), "IQ4_NL");
  }
}

// The kernels that run where there is no wgmma: on all devices but Hopper's.
class LaterDevice : public CudaModel {
 protected:
  void SetUp() override {
    CudaModel::SetUp();
    if (!api_) return;
    found_ = api_, later_ = *api_;
    later_.open = [](int device, cuda::Context** c, cuda::DeviceInfo* info) {
      const char* error = found_->open(device, c, info);
      if (!error) found_->without_warpgroups(*c);
      return error;
    };
    api_ = &later_;
  }

 private:
  static inline const cuda::Api* found_ = nullptr;
  cuda::Api later_{};
};

TEST_P(LaterDevice, APromptInHalvesEqualsTheReferenceWithinTheBoundInEveryFormat) {
  halves_equal_reference();
}

TEST_P(LaterDevice, FloatWeightsNeedNoHalvesToBeAskedFor) {
  for (Format format : {Format::F32, Format::F16, Format::BF16}) {
    const TestModel model(format, {});
    const Program p = model.program();
    const auto s = sequence(p);
    EXPECT_LT(error(logits(*s, 6), reference(p)), bound(format, 1, true)) << info(format).name;
  }
}

TEST_P(LaterDevice, SplitsOfAPromptInHalvesGiveTheSameBits) { splits_give_same_bits(); }

INSTANTIATE_TEST_SUITE_P(OnProcessor, CudaModel, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDevice, CudaModel, testing::Values(true));
INSTANTIATE_TEST_SUITE_P(OnProcessor, LaterDevice, testing::Values(false));
INSTANTIATE_TEST_SUITE_P(OnDevice, LaterDevice, testing::Values(true));

}  // namespace
}  // namespace plumb
