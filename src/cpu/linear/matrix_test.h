// Random matrices in every packed format, random tokens, and one call of a kernel. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "base/half.h"
#include "cpu/linear/linear.h"
#include "cpu/test_support.h"

namespace plumb::testing {

inline const Format kFormats[] = {Format::Q4_0, Format::Q4_1, Format::Q5_0,   Format::Q5_1,
                                  Format::Q8_0, Format::Q2_K, Format::Q3_K,   Format::Q4_K,
                                  Format::Q5_K, Format::Q6_K, Format::IQ4_NL, Format::IQ4_XS,
                                  Format::F16,  Format::BF16, Format::F32,    Format::MXFP4};

inline bool is_float(Format f) { return !quantised_input(f); }

// Where the f16 scale and minimum of a block stand; -1: none.
struct Fields {
  int d, min;
};
inline Fields fields(Format f) {
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

inline void put_half(uint8_t* p, float x) {
  const uint16_t h = float_to_half(x);
  std::memcpy(p, &h, 2);
}
inline float get_half(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return half_to_float(h);
}

inline float random_scale(Random& r) {
  switch (up_to(r, 7)) {
    case 0:
      return 0;
    case 1:
      return float(up_to(r, 1023)) * 0x1p-24f;  // subnormal in f16
    case 2:
      return -65504;
    case 3:
      return 65504;
    default:
      return normal(r) * 0.01f;
  }
}

inline float random_weight(Random& r) {
  switch (up_to(r, 9)) {
    case 0:
      return 0;
    case 1:
      return normal(r) * 1e-7f;  // subnormal in f16
    case 2:
      return normal(r) * 1e-39f;  // and in bfloat16 and f32
    default:
      return normal(r);
  }
}

// One block of valid bytes: random codes, or all at one end; scales sane, zero, subnormal, negative and
// extreme.
inline void random_block(Format f, Random& r, uint8_t* p) {
  const FormatInfo& i = info(f);
  if (is_float(f)) {
    const float x = random_weight(r);
    const uint16_t h = f == Format::F16 ? float_to_half(x) : float_to_bfloat16(x);
    std::memcpy(p, f == Format::F32 ? static_cast<const void*>(&x) : &h, size_t(i.bytes));
    return;
  }
  const int pattern = up_to(r, 11);
  constexpr uint8_t kEnds[] = {0, 255, 128, 127};
  for (int b = 0; b < i.bytes; ++b) p[b] = pattern < 4 ? kEnds[pattern] : uint8_t(r());
  const Fields at = fields(f);
  if (at.d >= 0) put_half(p + at.d, random_scale(r));
  if (at.min >= 0) put_half(p + at.min, random_scale(r));
  if (f == Format::MXFP4) p[0] = uint8_t(up_to(r, 4) == 0 ? up_to(r, 200) : 118 + up_to(r, 12));
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
      : n(n_), columns(columns_), rounding(rounding_), f32(normals(r, size_t(n * columns))) {
    const int most = rounding == Rounding::int16 ? kLargestCode : 127;
    for (int t = 0; t < n; ++t) {
      CodedRow row;
      for (int k = 0; k < columns; ++k) {
        const int end = up_to(r, 40);
        row.codes.push_back(end == 0   ? -most
                            : end == 1 ? most
                            : end == 2 ? 127 - up_to(r, 254)
                                       : up_to(r, 2 * most) - most);
        if (k % 32 == 0) row.scales.push_back(random_scale_of_tokens(r));
        if (k % kWindow != 0 || rounding != Rounding::refined) continue;
        const int groups = std::min(kWindow, columns - k) / 4;
        row.refined_at.push_back(k / 4 + up_to(r, groups - 1));
        row.refined.push_back({});
        for (int& q : row.refined.back()) q = up_to(r, 4) == 0 ? 127 : up_to(r, 254) - 127;
        row.refined_scales.push_back(random_scale_of_tokens(r));
      }
      rows.push_back(std::move(row));
    }
  }
  static float random_scale_of_tokens(Random& r) {
    return up_to(r, 9) == 0 ? 0 : std::fabs(normal(r)) * 0.05f;
  }

  int n, columns;
  Rounding rounding;
  std::vector<float> f32;
  std::vector<CodedRow> rows;
};

// y of tokens [first, first + n) by one call; columns past the groups must stay as they are.
inline std::vector<float> multiply(Isa isa, const Matrix& m, const Tokens& x, int first, int n) {
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

}  // namespace plumb::testing
