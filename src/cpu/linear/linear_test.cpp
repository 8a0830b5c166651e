// Matrix kernels of every packed format and instruction set against each other (bits), against the formula of
// docs/numerics.md written out here (bits), and against exact arithmetic on the same codes (derived bound).
#include <fmt/format.h>

#include "cpu/linear/matrix_test.h"
#include "quant/iq4_xs.h"
#include "quant/mxfp4.h"
#include "quant/q3_k.h"
#include "quant/q4_k.h"

namespace plumb {
namespace {

using testing::Fields;
using testing::fields;
using testing::get_half;
using testing::is_float;
using testing::kFormats;
using testing::Matrix;
using testing::multiply;
using testing::put_half;
using testing::Random;
using testing::Tokens;

// The numbers of 32 columns: codes less their offset; per 16 columns the scale w and the minimum m.
struct Decoded {
  int codes[32];
  float w[2], m[2];
  int subs;
};
Decoded decode_32(Format f, const uint8_t* row, int block) {
  const FormatInfo& i = info(f);
  const uint8_t* p = row + block * 32 / i.block * i.bytes;
  const int j = block % (i.block / 32);
  Decoded out{};
  std::vector<uint8_t> plain(p, p + i.bytes);  // with d = 1 and no minimum its weights are integers
  const Fields at = fields(f);
  if (at.d >= 0) put_half(&plain[size_t(at.d)], 1);
  if (at.min >= 0) put_half(&plain[size_t(at.min)], 0);
  if (f == Format::MXFP4) plain[0] = 128;
  float weights[256];
  decode(f, plain.data(), i.block, weights);
  const float d = f == Format::MXFP4 ? half_scale_e8m0(p[0]) : get_half(p + at.d);
  const float min = at.min >= 0 ? get_half(p + at.min) : 0;
  out.subs = f == Format::Q2_K || f == Format::Q3_K || f == Format::Q6_K ? 2 : 1;
  for (int h = 0; h < out.subs; ++h) {
    int scale = 1;
    out.m[h] = min;
    if (f == Format::Q4_K || f == Format::Q5_K) {
      const ScaleMin sm = scale_min_k4(p + 4, j);
      scale = sm.scale, out.m[h] = -min * float(sm.min);
    }
    if (f == Format::Q2_K) scale = p[2 * j + h] & 15, out.m[h] = -min * float(p[2 * j + h] >> 4);
    if (f == Format::Q3_K) scale = scale_k3(p + 96, 2 * j + h);
    if (f == Format::Q6_K) scale = int8_t(p[192 + 2 * j + h]);
    if (f == Format::IQ4_XS) {
      BlockIQ4_XS b;
      std::memcpy(&b, p, sizeof b);
      scale = scale_iq4_xs(b, j);
    }
    out.w[h] = d * float(scale);
    for (int k = h * 16; k < (out.subs == 2 ? h * 16 + 16 : 32); ++k) {
      out.codes[k] = scale == 0 ? 0 : int(weights[32 * j + k]) / scale;
    }
  }
  return out;
}

// The formula of numerics.md; `exact` and the bound's sum follow beside it.
struct Expected {
  float y = 0;
  double exact = 0, bound = 0;

  void add_product(float scaled, float w, float s, double i) {
    y = std::fmaf(scaled, w * s, y);  // float(i) may round: one more term
    exact += i * w * s, sum += std::fabs(i * w * s), terms += 2;
    tiny += (std::fabs(i) + 2) * 0x1p-149;  // where the product or the sum is subnormal
  }
  void add_min(float m, float s, int ones) {
    y = std::fmaf(m, s * float(ones), y);
    exact += double(m) * s * ones, sum += std::fabs(double(m) * s * ones), ++terms;
    tiny += (std::fabs(double(m)) + 2) * 0x1p-149;
  }
  void close() {
    const double nu = (terms + 1) * 0x1p-24;
    bound = nu / (1 - nu) * sum + tiny;
  }
  double sum = 0, tiny = 0;
  int terms = 0;
};

Expected float_formula(const Matrix& m, int row, const Tokens& x, int t) {
  Expected e;
  std::vector<float> w(size_t(m.columns));
  decode(m.format, m.row(row), m.columns, w.data());
  for (int k = 0; k < m.columns; ++k) {
    const float v = x.f32[size_t(t * m.columns + k)];
    e.y = std::fmaf(w[size_t(k)], v, e.y);
    e.exact += double(w[size_t(k)]) * v, e.sum += std::fabs(double(w[size_t(k)]) * v);
  }
  e.terms = m.columns, e.tiny = m.columns * 0x1p-149;
  e.close();
  return e;
}

Expected formula(const Matrix& m, int row, const Tokens& x, int t) {
  if (is_float(m.format)) return float_formula(m, row, x, t);
  Expected e;
  const bool has_min = fields(m.format).min >= 0;
  const testing::CodedRow& a = x.rows[size_t(t)];
  const int blocks = m.columns / 32, window = kWindow / 32;
  for (int b = 0; b < blocks; ++b) {
    const Decoded d = decode_32(m.format, m.row(row), b);
    for (int h = 0; h < d.subs; ++h) {
      int i = 0, ones = 0;
      for (int k = h * 16; k < (d.subs == 2 ? h * 16 + 16 : 32); ++k)
        i += d.codes[k] * a.codes[size_t(32 * b + k)], ones += a.codes[size_t(32 * b + k)];
      e.add_product(float(i), d.w[h], a.scales[size_t(b)], i);
      if (has_min) e.add_min(d.m[h], a.scales[size_t(b)], ones);
    }
    if (x.rounding != Rounding::refined || (b % window != window - 1 && b != blocks - 1)) continue;
    const size_t w = size_t(b / window);
    const int column = a.refined_at[w] * 4;
    const Decoded r = decode_32(m.format, m.row(row), column / 32);
    const int h = r.subs == 2 && column % 32 >= 16;
    int i = 0, ones = 0;
    for (int k = 0; k < 4; ++k)
      i += r.codes[column % 32 + k] * a.refined[w][size_t(k)], ones += a.refined[w][size_t(k)];
    e.add_product(float(i), r.w[h], a.refined_scales[w], i);
    if (has_min) e.add_min(r.m[h], a.refined_scales[w], ones);
  }
  e.close();
  return e;
}

constexpr Rounding kRoundings[] = {Rounding::refined, Rounding::int8, Rounding::int16};

class LinearKernel : public ::testing::TestWithParam<Format> {};

// One matrix, 31 tokens: the formula, then every instruction set with every number of tokens at once.
void check_matrix(const Matrix& m, const Tokens& x) {
  const int width = m.groups * 16;
  const std::string what =
      fmt::format("{} {}x{} rounding {}", info(m.format).name, m.rows, m.columns, int(x.rounding));
  std::vector<float> alone;  // [31, width], each token by itself
  for (int t = 0; t < x.n; ++t) {
    const std::vector<float> y = multiply(Isa::scalar, m, x, t, 1);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  testing::note_bits(alone);
  for (int row = 0; row < width; ++row) {
    if (row >= m.rows) {
      ASSERT_EQ(alone[size_t(row)], 0) << "a row past the end";
      continue;
    }
    const int t = row % 5;
    const Expected e = formula(m, row, x, t);
    const float y = alone[size_t(t * width + row)];
    ASSERT_EQ(y, e.y) << what << " row " << row;
    ASSERT_LE(std::fabs(y - e.exact), e.bound) << what << " row " << row;
  }
  for (Isa isa : testing::isas()) {
    for (int n : {1, 2, 3, 4, 5, 6, 7, 12, 13, 31}) {
      const int first = 31 - n;
      const std::vector<float> y = multiply(isa, m, x, first, n);
      const int64_t at =
          testing::first_difference(y.data(), &alone[size_t(first * width)], int64_t(n) * width);
      ASSERT_EQ(at, -1) << name(isa) << " " << what << " n=" << n << ": " << y[size_t(at)] << " for "
                        << alone[size_t(first * width + at)];
    }
  }
}

TEST_P(LinearKernel, HasTheSameBitsOnEveryIsaForEveryNumberOfTokensAndObeysTheFormula) {
  Random r(42 + uint64_t(GetParam()));
  for (int columns : {32, 96, 256, 512, 576, 640, 1536}) {
    if (columns % info(GetParam()).block != 0) continue;
    for (int rows : {1, 15, 16, 17, 48, 576}) {
      if (rows == 576 && columns != 512 && columns != 576) continue;
      const Matrix m(GetParam(), rows, columns, r);
      for (Rounding rounding : kRoundings) {
        check_matrix(m, Tokens(31, columns, rounding, r));
        if (HasFatalFailure()) return;
        if (is_float(GetParam())) break;
      }
    }
  }
}

TEST_P(LinearKernel, ReadsEveryPackedWeightAsTheFormatDecodesIt) {
  Random r(7 + uint64_t(GetParam()));
  const int rows = 19, columns = 512, block = 31;
  const Matrix m(GetParam(), rows, columns, r);
  std::vector<float> weights(size_t(rows * columns));
  for (int i = 0; i < rows; ++i) decode(m.format, m.row(i), columns, &weights[size_t(i * columns)]);
  for (int first = 0; first < columns; first += block) {
    const int n = std::min(block, columns - first);
    Tokens x(n, columns, first % 2 ? Rounding::int8 : Rounding::int16,
             r);  // token t is one at column first + t
    std::fill(x.f32.begin(), x.f32.end(), 0.0f);
    for (int t = 0; t < n; ++t) {
      testing::CodedRow& row = x.rows[size_t(t)];
      std::fill(row.codes.begin(), row.codes.end(), 0);
      std::fill(row.scales.begin(), row.scales.end(), 1.0f);
      row.codes[size_t(first + t)] = 1, x.f32[size_t(t * columns + first + t)] = 1;
    }
    for (Isa isa : testing::isas()) {
      const std::vector<float> y = multiply(isa, m, x, 0, n);
      for (int t = 0; t < n; ++t) {
        for (int i = 0; i < rows; ++i) {
          ASSERT_EQ(y[size_t(t * m.groups * 16 + i)], weights[size_t(i * columns + first + t)])
              << name(isa) << " " << info(m.format).name << " row " << i << " column " << first + t;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LinearKernel, ::testing::ValuesIn(kFormats),
                         [](const auto& p) { return std::string(::plumb::info(p.param).name); });

TEST(LinearKernels, ExistForEveryQuantisedInputFormatAndNoOther) {
  for (const FormatInfo& f : formats()) {
    for (Isa isa : testing::isas()) {
      const bool has = kernels(isa).matmul(f.format) != nullptr;
      EXPECT_EQ(has, packed_group_bytes(f.format, 256) > 0) << f.name;
      EXPECT_TRUE(has || !quantised_input(f.format)) << f.name;
    }
  }
}

}  // namespace
}  // namespace plumb
