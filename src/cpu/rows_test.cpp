// Operations on rows and heads: bits across instruction sets, formulas of docs/numerics.md, accuracy against
// wider arithmetic.
#include <gtest/gtest.h>

#include <cmath>

#include "cpu/rope_table.h"
#include "cpu/test_support.h"
#include "program/ops.h"

namespace plumb {
namespace {

using testing::Random;

TEST(Rows, NormPostNormScaleAndResidualEqualOnEveryIsaAndObeyTheBound) {
  Random r(2);
  for (int size : {1, 15, 16, 48, 63, 64, 65, 576, 1000}) {
    const std::vector<float> x = testing::normals(r, size_t(size), 3),
                             residual = testing::normals(r, size_t(size));
    const std::vector<float> post = testing::normals(r, size_t(size)),
                             norm = testing::normals(r, size_t(size));
    std::vector<float> first;
    for (Isa isa : testing::isas()) {
      std::vector<float> sum(size_t(size), 0), out(size_t(size), 0);
      RowArgs a{};
      a.x = x.data(), a.scale = 0.5, a.post = post.data(), a.post_eps = 1e-5f, a.residual = residual.data();
      a.sum = sum.data(), a.norm = norm.data(), a.eps = 1e-6f, a.out.f32 = out.data(), a.heads = 1,
      a.dim = size;
      kernels(isa).row(a, 0, 0);
      std::vector<double> y(x.begin(), x.end()), g(post.begin(), post.end());
      for (double& v : y) v *= 0.5;
      ops::rms_norm(y.data(), g.data(), size, double(1e-5f), y.data());
      // (n / 64 + 12) roundings in the sum of squares count half; then sqrt, division and two products.
      const double bound = ((size / 64 + 12) / 2.0 + 5) * 0x1p-24;
      for (int k = 0; k < size; ++k) {
        EXPECT_NEAR(sum[size_t(k)], y[size_t(k)] + residual[size_t(k)],
                    std::fabs(y[size_t(k)]) * bound + std::fabs(sum[size_t(k)]) * 0x1p-23)
            << name(isa) << " " << size;
      }
      std::vector<double> z(sum.begin(), sum.end()), h(norm.begin(), norm.end());
      ops::rms_norm(z.data(), h.data(), size, double(1e-6f), z.data());
      for (int k = 0; k < size; ++k)
        EXPECT_NEAR(out[size_t(k)], z[size_t(k)], std::fabs(z[size_t(k)]) * bound);
      if (first.empty()) testing::note_bits(first = out);
      EXPECT_EQ(testing::first_difference(first.data(), out.data(), size), -1) << name(isa) << " " << size;
    }
  }
}

TEST(Rows, ARowWithNothingToDoIsCopied) {
  const std::vector<float> x = {1, 2, 3, 4, 5, 6, 7, 8};
  for (Isa isa : testing::isas()) {
    std::vector<float> out(8, 9);
    RowArgs a{};
    a.x = x.data(), a.x_stride = 4, a.scale = 1, a.out = {out.data(), 4}, a.heads = 1, a.dim = 4;
    for (int row : {0, 1}) kernels(isa).row(a, row, row);
    EXPECT_EQ(out, x);
  }
}

TEST(Heads, NormAndRopeOfBothStylesFollowTheFormula) {
  Random r(3);
  for (RopeStyle style : {RopeStyle::half, RopeStyle::pairs}) {
    for (int dim : {16, 48, 64, 80, 128, 256}) {
      for (int dims : {dim, dim / 2}) {
        for (int pos : {0, 1, 511, 131071}) {
          const Rope rope{.style = style, .dims = dims, .freq_base = 1e4f};
          const RopeFrequencies f = rope_frequencies(rope, nullptr);
          std::vector<float> c(size_t(dims / 2)), s(size_t(dims / 2)), first;
          rope_row(f, pos, c.data(), s.data());
          const std::vector<float> x = testing::normals(r, size_t(3 * dim)),
                                   g = testing::normals(r, size_t(dim));
          for (Isa isa : testing::isas()) {
            std::vector<float> y(x.size());
            kernels(isa).head({x.data(), y.data(), g.data(), 1e-6f, c.data(), s.data(), style, dims, 3, dim});
            if (first.empty()) testing::note_bits(first = y);
            EXPECT_EQ(first, y) << name(isa);
          }
          for (int h = 0; h < 3; ++h) {
            std::vector<double> n(x.begin() + h * dim, x.begin() + (h + 1) * dim), gd(g.begin(), g.end()),
                y(n.size());
            ops::rms_norm(n.data(), gd.data(), dim, double(1e-6f), n.data());
            ops::rope<double>(rope, nullptr, pos, dim, n.data(), y.data());
            double largest = 0;
            for (double v : n) largest = std::max(largest, std::fabs(v));
            for (int i = 0; i < dim;
                 ++i) {  // norm, cosine and sine, product and fma; the pair is within sqrt(2) of largest
              EXPECT_NEAR(first[size_t(h * dim + i)], y[size_t(i)], 2 * largest * 20 * 0x1p-24)
                  << dim << " pos " << pos;
            }
          }
        }
      }
    }
  }
}

TEST(RopeTable, AgreesWithTheReferenceForEveryScaling) {
  const std::vector<float> factors = {1, 2, 8, 0.5f, 1, 3, 5, 7, 1, 2, 8, 0.5f, 1, 3, 5, 7};
  for (RopeScaling scaling : {RopeScaling::none, RopeScaling::linear, RopeScaling::yarn}) {
    const Rope rope{.dims = 32,
                    .freq_base = 5e5f,
                    .scaling = scaling,
                    .factor = 4,
                    .original_context = 8192,
                    .attn_factor = 1.5f};
    for (const float* divisors : {static_cast<const float*>(nullptr), factors.data()}) {
      const RopeFrequencies f = rope_frequencies(rope, divisors);
      for (int64_t pos : {0, 1, 4097, 1000000}) {
        float c[16], s[16];
        rope_row(f, int(pos), c, s);
        for (int i = 0; i < 16; ++i) {
          const ops::Turn t = ops::rope_turn(rope, divisors ? double(divisors[i]) : 1, pos, i);
          const double error = 1.5 * 2 * (0x1p-24 + 1e-15 * (1 + std::fabs(t.angle) * 20));
          EXPECT_NEAR(c[i], std::cos(t.angle) * t.magnitude, error) << i << " at " << pos;
          EXPECT_NEAR(s[i], std::sin(t.angle) * t.magnitude, error) << i << " at " << pos;
        }
      }
    }
  }
}

TEST(Glu, IsWithinItsBoundOverTheFullRangeAndEqualOnEveryIsa) {
  std::vector<float> x = {0,      -0.0f, 0x1p-149f, -0x1p-149f, 1e-30f, 1e10f,
                          -1e10f, 1e13f, -1e13f,    3e38f,      -3e38f};
  for (double v = -130; v <= 130; v += 0.0078125) x.push_back(float(v));
  for (float v = 1e-12f; v < 1; v *= 1.01f) x.push_back(v), x.push_back(-v);
  while (x.size() % 16 != 0) x.push_back(0);
  const std::vector<float> up(x.size(), 1.0f);
  for (Act act : {Act::silu, Act::gelu_tanh}) {
    std::vector<float> first;
    for (Isa isa : testing::isas()) {
      std::vector<float> y(x.size());
      kernels(isa).glu(act, x.data(), up.data(), y.data(), int(x.size()));
      if (first.empty()) testing::note_bits(first = y);
      EXPECT_EQ(testing::first_difference(first.data(), y.data(), int64_t(y.size())), -1) << name(isa);
    }
    for (size_t i = 0; i < x.size(); ++i) {
      const long double v = x[i];
      const long double z =
          act == Act::silu ? v : 1.5957691216057307117597842397375L * (v + 0.044715L * v * v * v);
      const long double y = v / (1 + std::exp(-z));
      // The argument has up to 5 roundings, which e^z turns into relative error |z| 5u; exp itself 2.5e-7, 4
      // roundings.
      const long double z_error = act == Act::silu ? 0 : std::fmin(std::fabs(z), 90.0L) * 5 * 0x1p-24L;
      const long double relative = z_error + 3e-7L + 4 * 0x1p-24L;
      EXPECT_LE(std::fabs(first[i] - y),
                std::fabs(y) * relative + std::fabs(std::fmin(v, 0.0L)) * 5e-38L + 0x1p-149L)
          << x[i];
    }
  }
}

TEST(Add, IsOneRoundingPerElementOnEveryIsa) {
  Random r(4);
  const std::vector<float> a = testing::normals(r, 64), b = testing::normals(r, 64, 1e-6f);
  for (Isa isa : testing::isas()) {
    std::vector<float> y(64);
    kernels(isa).add(a.data(), b.data(), y.data(), 64);
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(y[i], a[i] + b[i]);
  }
}

}  // namespace
}  // namespace plumb
