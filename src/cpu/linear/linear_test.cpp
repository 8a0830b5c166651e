// Matrix kernels of every packed format and instruction set against each other (bits), against the formula of
// docs/numerics.md written out here (bits), and against exact arithmetic on the same codes (derived bound).
#include "cpu/linear/linear.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/half.h"
#include "cpu/test_support.h"
#include "quant/iq4_xs.h"
#include "quant/mxfp4.h"
#include "quant/q3_k.h"
#include "quant/q4_k.h"

namespace plumb {
namespace {

using testing::Activations;
using testing::Random;

const Format kFormats[] = {Format::Q4_0, Format::Q4_1, Format::Q5_0,   Format::Q5_1,
                           Format::Q8_0, Format::Q2_K, Format::Q3_K,   Format::Q4_K,
                           Format::Q5_K, Format::Q6_K, Format::IQ4_NL, Format::IQ4_XS,
                           Format::F16,  Format::BF16, Format::F32,    Format::MXFP4};

bool is_float(Format f) { return !quantised_input(f); }

// Where the f16 scale and minimum of a block stand; -1: none.
struct Fields {
  int d, min;
};
Fields fields(Format f) {
  switch (f) {
    case Format::Q4_1:
    case Format::Q5_1:
    case Format::Q4_K:
    case Format::Q5_K:
      return {0, 2};
    case Format::Q2_K:
      return {80, 82};
    case Format::Q3_K:
      return {108, -1};
    case Format::Q6_K:
      return {208, -1};
    case Format::MXFP4:
      return {-1, -1};
    default:
      return {0, -1};
  }
}

void put_half(uint8_t* p, float x) {
  const uint16_t h = float_to_half(x);
  std::memcpy(p, &h, 2);
}
float get_half(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return half_to_float(h);
}

float random_scale(Random& r) {
  switch (testing::up_to(r, 7)) {
    case 0:
      return 0;
    case 1:
      return float(testing::up_to(r, 1023)) * 0x1p-24f;  // subnormal in f16
    case 2:
      return -65504;
    case 3:
      return 65504;
    default:
      return testing::normal(r) * 0.01f;
  }
}

float random_weight(Random& r) {
  switch (testing::up_to(r, 9)) {
    case 0:
      return 0;
    case 1:
      return testing::normal(r) * 1e-7f;  // subnormal in f16
    case 2:
      return testing::normal(r) * 1e-39f;  // and in bfloat16 and f32
    default:
      return testing::normal(r);
  }
}

// One block of valid bytes: random codes, or all at one end; scales sane, zero, subnormal, negative and
// extreme.
void random_block(Format f, Random& r, uint8_t* p) {
  const FormatInfo& i = info(f);
  if (is_float(f)) {
    const float x = random_weight(r);
    const uint16_t h = f == Format::F16 ? float_to_half(x) : float_to_bfloat16(x);
    std::memcpy(p, f == Format::F32 ? static_cast<const void*>(&x) : &h, size_t(i.bytes));
    return;
  }
  const int pattern = testing::up_to(r, 11);
  constexpr uint8_t kEnds[] = {0, 255, 128, 127};
  for (int b = 0; b < i.bytes; ++b) p[b] = pattern < 4 ? kEnds[pattern] : uint8_t(r());
  const Fields at = fields(f);
  if (at.d >= 0) put_half(p + at.d, random_scale(r));
  if (at.min >= 0) put_half(p + at.min, random_scale(r));
  if (f == Format::MXFP4)
    p[0] = uint8_t(testing::up_to(r, 4) == 0 ? testing::up_to(r, 200) : 118 + testing::up_to(r, 12));
}

struct Matrix {
  Matrix(Format f, int rows_, int columns_, Random& r)
      : format(f),
        rows(rows_),
        columns(columns_),
        groups((rows_ + 31) / 32 * 2),
        bytes(size_t(rows * row_bytes(f, columns))) {
    for (size_t at = 0; at < bytes.size(); at += size_t(info(f).bytes)) random_block(f, r, bytes.data() + at);
    group_bytes = packed_group_bytes(f, columns);
    packed.assign(size_t(groups * group_bytes), 0xee);
    for (int g = 0; g < groups; ++g) {
      const uint8_t* p[16] = {};
      for (int i = 0; i < 16 && g * 16 + i < rows; ++i) p[i] = row(g * 16 + i);
      pack_group(f, p, columns, packed.data() + g * group_bytes);
    }
  }
  const uint8_t* row(int i) const { return bytes.data() + i * row_bytes(format, columns); }

  Format format;
  int rows, columns, groups;
  int64_t group_bytes = 0;
  std::vector<uint8_t> bytes, packed;
};

// The same tokens as codes, and as floats for float weights.
struct Tokens {
  Tokens(int n_, int columns_, Rounding rounding_, Random& r)
      : n(n_), columns(columns_), rounding(rounding_), f32(testing::normals(r, size_t(n * columns))) {
    const int most = rounding == Rounding::int16 ? kLargestCode : 127;
    for (int t = 0; t < n; ++t) {
      testing::CodedRow row;
      for (int k = 0; k < columns; ++k) {
        const int end = testing::up_to(r, 40);
        row.codes.push_back(end == 0   ? -most
                            : end == 1 ? most
                            : end == 2 ? 127 - testing::up_to(r, 254)
                                       : testing::up_to(r, 2 * most) - most);
        if (k % 32 == 0) row.scales.push_back(random_scale_of_tokens(r));
        if (k % kWindow != 0 || rounding != Rounding::refined) continue;
        const int groups = std::min(kWindow, columns - k) / 4;
        row.refined_at.push_back(k / 4 + testing::up_to(r, groups - 1));
        row.refined.push_back({});
        for (int& q : row.refined.back()) q = testing::up_to(r, 4) == 0 ? 127 : testing::up_to(r, 254) - 127;
        row.refined_scales.push_back(random_scale_of_tokens(r));
      }
      rows.push_back(std::move(row));
    }
  }
  static float random_scale_of_tokens(Random& r) {
    return testing::up_to(r, 9) == 0 ? 0 : std::fabs(testing::normal(r)) * 0.05f;
  }

  int n, columns;
  Rounding rounding;
  std::vector<float> f32;
  std::vector<testing::CodedRow> rows;
};

// y of tokens [first, first + n) by one call; columns past the groups must stay as they are.
std::vector<float> multiply(Isa isa, const Matrix& m, const Tokens& x, int first, int n) {
  Activations a(n, m.columns, x.rounding);
  for (int t = 0; t < n; ++t) a.set(t, x.rows[size_t(first + t)]);
  const int width = m.groups * 16, stride = width + 3;
  std::vector<float> y(size_t(n * stride), 12345.0f);
  std::vector<uint8_t> scratch(size_t(matmul_scratch_bytes(m.columns)));
  MatmulArgs args{};
  args.packed = m.packed.data(), args.group_bytes = m.group_bytes, args.groups = m.groups;
  args.columns = m.columns, args.n = n, args.x8 = a.x8;
  args.x = &x.f32[size_t(first) * m.columns], args.x_stride = m.columns;
  args.y = y.data(), args.y_stride = stride, args.scratch = scratch.data();
  kernels(isa).matmul(m.format)(args);
  std::vector<float> out;
  for (int t = 0; t < n; ++t) {
    out.insert(out.end(), y.begin() + t * stride, y.begin() + t * stride + width);
    for (int i = width; i < stride; ++i)
      EXPECT_EQ(y[size_t(t * stride + i)], 12345.0f) << "written past the row";
  }
  return out;
}

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
