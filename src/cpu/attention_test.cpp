// Attention kernels over the paged cache: against program/ops.h in f64 with a derived bound, and bits across
// instruction sets and groupings of rows. What lies in unused cells of a page is planted NaN and must never
// show.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/half.h"
#include "cpu/test_support.h"
#include "program/ops.h"

namespace plumb {
namespace {

using testing::Random;

// One kv head of `length` positions, all other cells NaN; the values as rounded, for the reference.
struct Cache {
  Cache(Isa isa, KvType type, int dim_, int length_, const std::vector<float>& k, const std::vector<float>& v)
      : dim(dim_), length(length_), keys(k.begin(), k.end()), values(v.begin(), v.end()) {
    const int64_t half = kv_head_bytes(type, dim);
    for (int c = 0; c * kChunk < length; ++c)
      memory.emplace_back(size_t(2 * half), uint8_t(0xff));  // NaN in both types
    for (auto& page : memory) pages.push_back(page.data());
    head = {pages.data(), 0, half, type, type, dim};
    for (int p = 0; p < length; ++p) {
      kernels(isa).store_k(head, p, &k[size_t(p * dim)]);
      kernels(isa).store_v(head, p, &v[size_t(p * dim)]);
    }
    if (type == KvType::f32) return;
    for (double& x : keys) x = half_to_float(float_to_half(float(x)));
    for (double& x : values) x = half_to_float(float_to_half(float(x)));
  }
  int dim, length;
  std::vector<double> keys, values;
  std::vector<std::vector<uint8_t>> memory;
  std::vector<uint8_t*> pages;
  KvHead head;
};

std::vector<float> attend(Isa isa, const Cache& c, const std::vector<float>& q, int group, int first_pos,
                          int tokens, int window, float scale) {
  std::vector<float> out(size_t(tokens * group * c.dim), -77);
  std::vector<uint8_t> scratch(size_t(attention_scratch_bytes(c.dim)), uint8_t(0xff));
  AttentionArgs a{};
  a.q = q.data(), a.q_stride = group * c.dim, a.tokens = tokens, a.group = group, a.dim = c.dim;
  a.first_pos = first_pos, a.window = window, a.scale = scale, a.kv = &c.head;
  a.out = out.data(), a.out_stride = group * c.dim, a.scratch = scratch.data();
  kernels(isa).attention(a);
  return out;
}

// |y - exact| for one query head: scores err by gamma(dim) |q| |k| scale and a rounding of the difference, e
// by 2.5e-7 more, and each weight of the softmax by twice that; then fma chains over keys.
double bound(const double* q, const Cache& c, int64_t first, int64_t pos, double scale) {
  double sizes = 0, largest = 0;
  for (int64_t u = first; u <= pos; ++u) {
    double sum = 0;
    for (int d = 0; d < c.dim; ++d) {
      sum += std::fabs(q[d] * c.keys[size_t(u * c.dim + d)]);
      largest = std::max(largest, std::fabs(c.values[size_t(u * c.dim + d)]));
    }
    sizes = std::max(sizes, sum * std::fabs(scale));
  }
  const double u = 0x1p-24, score = (c.dim + 4) * u * sizes + 2 * u * sizes;
  const double chunks = double(pos / kChunk - first / kChunk + 1);
  return largest * (2 * score + 2 * 3e-7 * (1 + chunks) + (double(pos - first + 1) * 2 + 4 * chunks + 8) * u);
}

TEST(Attention, EqualsTheReferenceWithinTheBoundAndItselfOnEveryIsaAndGrouping) {
  Random r(5);
  int cases = 0;
  for (int dim : {16, 48, 64, 80, 128, 256}) {
    for (int group : {1, 3, 4, 8, 9}) {
      for (int length : {1, 2, 15, 16, 17, 255, 256, 257, 600}) {
        const KvType type = ++cases % 2 ? KvType::f16 : KvType::f32;
        const std::vector<float> k = testing::normals(r, size_t(length * dim)),
                                 v = testing::normals(r, size_t(length * dim));
        const int tokens = std::min(length, 1 + cases % 5), first_pos = length - tokens;
        const std::vector<float> q = testing::normals(r, size_t(tokens * group * dim));
        const float scale = 1 / std::sqrt(float(dim));
        const Cache scalar(Isa::scalar, type, dim, length, k, v);
        for (int window : {0, 1, 16, 100, 300}) {
          if (window > 1 && (cases + window) % 3 != 0) continue;
          const std::vector<float> y =
              attend(Isa::scalar, scalar, q, group, first_pos, tokens, window, scale);
          testing::note_bits(y);
          for (int t = 0; t < tokens; ++t) {
            const int64_t pos = first_pos + t,
                          first = window > 0 ? std::max<int64_t>(0, pos - window + 1) : 0;
            for (int h = 0; h < group; ++h) {
              const float* from = &q[size_t((t * group + h) * dim)];
              const std::vector<double> qd(from, from + dim);
              std::vector<double> exact(qd.size());
              ops::attention<double>({.scale = scale, .window = window}, qd.data(), scalar.keys.data(),
                                     scalar.values.data(), dim, pos, dim, exact.data());
              const double most = bound(qd.data(), scalar, first, pos, scale);
              for (int d = 0; d < dim; ++d) {
                ASSERT_NEAR(y[size_t((t * group + h) * dim + d)], exact[size_t(d)], most)
                    << "dim " << dim << " group " << group << " length " << length << " window " << window;
              }
            }
            const auto row = q.begin() + t * group * dim;
            const std::vector<float> alone =
                attend(Isa::scalar, scalar, {row, row + group * dim}, group, int(pos), 1, window, scale);
            ASSERT_EQ(testing::first_difference(alone.data(), &y[size_t(t * group * dim)], group * dim), -1)
                << "a token beside others";
          }
          for (Isa isa : testing::isas()) {
            const Cache own(isa, type, dim, length, k, v);
            ASSERT_EQ(own.memory, scalar.memory) << name(isa) << " stores other bytes";
            const std::vector<float> z = attend(isa, own, q, group, first_pos, tokens, window, scale);
            ASSERT_EQ(testing::first_difference(y.data(), z.data(), int64_t(y.size())), -1) << name(isa);
          }
        }
      }
    }
  }
}

TEST(Attention, SurvivesScoresSoFarApartThatAllButOneWeightVanish) {
  const int dim = 16, length = 520;
  std::vector<float> k(size_t(length * dim)), v(k.size()), q(size_t(dim), 30.0f);
  for (int p = 0; p < length; ++p) {
    for (int d = 0; d < dim; ++d)
      k[size_t(p * dim + d)] = p == 300 ? 30.0f : -30.0f, v[size_t(p * dim + d)] = float(p);
  }
  for (Isa isa : testing::isas()) {
    const Cache c(isa, KvType::f32, dim, length, k, v);
    for (float y : attend(isa, c, q, 1, length - 1, 1, 0, 1)) EXPECT_EQ(y, 300) << name(isa);
  }
}

TEST(KvStore, RoundsToTheTypeOnceAndWritesNothingElse) {
  Random r(6);
  for (int dim : {16, 40, 80}) {
    const std::vector<float> x = testing::normals(r, size_t(dim), 100);
    for (KvType type : {KvType::f16, KvType::f32}) {
      for (int pos : {0, 15, 16, 255}) {
        for (Isa isa : testing::isas()) {
          const int64_t half = kv_head_bytes(type, dim);
          std::vector<uint8_t> page(size_t(2 * half), uint8_t(0xff));
          uint8_t* pages[] = {page.data()};
          const KvHead head{pages, 0, half, type, type, dim};
          kernels(isa).store_k(head, pos, x.data());
          kernels(isa).store_v(head, pos, x.data());
          const int64_t size = kv_element_bytes(type);
          int written = 0;
          for (size_t i = 0; i < page.size(); i += size_t(size)) {
            bool same = true;
            for (int64_t b = 0; b < size; ++b) same = same && page[i + size_t(b)] == 0xff;
            written += !same;
          }
          EXPECT_EQ(written, 2 * dim) << "cells that changed";
          for (int d = 0; d < dim; ++d) {
            const int64_t k_at = (int64_t(pos / 16) * dim + d) * 16 + pos % 16,
                          v_at = int64_t(pos) * kv_dim(dim) + d;
            const auto read = [&](const uint8_t* p) {
              uint16_t h;
              float f;
              std::memcpy(&h, p, 2), std::memcpy(&f, p, size_t(size == 4 ? 4 : 0));
              return size == 2 ? half_to_float(h) : f;
            };
            const float expected =
                type == KvType::f16 ? half_to_float(float_to_half(x[size_t(d)])) : x[size_t(d)];
            EXPECT_EQ(read(page.data() + k_at * size), expected);
            EXPECT_EQ(read(page.data() + half + v_at * size), expected);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace plumb
