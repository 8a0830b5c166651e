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

constexpr KvType kTypes[] = {KvType::f16, KvType::f32, KvType::bf16, KvType::q8_0};

// What a cache of this type gives back for a key or value x: each element rounded once; q8_0 as a multiple of
// an f16 scale per 32 dims.
std::vector<double> rounded(KvType type, const float* x, int dim) {
  std::vector<double> y(x, x + dim);
  for (int k = 0; k < dim; ++k) {
    if (type == KvType::f16) y[size_t(k)] = half_to_float(float_to_half(x[k]));
    if (type == KvType::bf16) y[size_t(k)] = bfloat16_to_float(float_to_bfloat16(x[k]));
  }
  for (int first = 0; type == KvType::q8_0 && first < dim; first += kKvBlock) {
    const int end = std::min(dim, first + kKvBlock);
    float largest = 0;
    for (int k = first; k < end; ++k) largest = std::max(largest, std::fabs(x[k]));
    const float scale = half_to_float(float_to_half(largest / 127)), inverse = scale > 0 ? 1 / scale : 0;
    for (int k = first; k < end; ++k)
      y[size_t(k)] = double(std::nearbyint(std::clamp(x[k] * inverse, -127.0f, 127.0f))) * double(scale);
  }
  return y;
}

// One kv head of `length` positions, all other cells NaN; the values as rounded, for the reference.
struct Cache {
  Cache(Isa isa, KvTypes types, int dim_, int length_, const std::vector<float>& k,
        const std::vector<float>& v)
      : dim(dim_), length(length_) {
    const int64_t k_bytes = kv_head_bytes(types.k, dim), v_bytes = kv_head_bytes(types.v, dim);
    for (int c = 0; c * kChunk < length; ++c)
      memory.emplace_back(size_t(k_bytes + v_bytes), uint8_t(0xff));  // NaN in every type, as is a scale
    for (auto& page : memory) pages.push_back(page.data());
    head = {pages.data(), 0, k_bytes, types.k, types.v, dim};
    for (int p = 0; p < length; ++p) {
      const float *key = &k[size_t(p * dim)], *value = &v[size_t(p * dim)];
      kernels(isa).store_k(head, p, key), kernels(isa).store_v(head, p, value);
      for (double x : rounded(types.k, key, dim)) keys.push_back(x);
      for (double x : rounded(types.v, value, dim)) values.push_back(x);
    }
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

// The same for one token, each chunk computed by itself and all joined afterwards, as threads share them.
std::vector<float> attend_by_chunks(Isa isa, const Cache& c, const std::vector<float>& q, int group, int pos,
                                    int window, float scale) {
  const int first = window > 0 ? std::max(0, pos - window + 1) / kChunk : 0,
            chunks = pos / kChunk - first + 1;
  const int64_t stride = group * partial_floats(c.dim);
  std::vector<float> partials(size_t(chunks * stride), NAN), out(size_t(group * c.dim), -77);
  for (int chunk = chunks - 1; chunk >= 0; --chunk) {  // in any order
    std::vector<uint8_t> scratch(size_t(attention_scratch_bytes(c.dim)), uint8_t(0xff));
    AttentionArgs a{};
    a.q = q.data(), a.q_stride = group * c.dim, a.tokens = 1, a.group = group, a.dim = c.dim;
    a.first_pos = pos, a.window = window, a.scale = scale, a.kv = &c.head, a.scratch = scratch.data();
    a.partial = partials.data() + chunk * stride, a.chunk = first + chunk;
    kernels(isa).attention(a);
  }
  kernels(isa).attention_merge({partials.data(), stride, chunks, group, c.dim, out.data()});
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

struct Case {
  int dim, group, length, tokens, window;
  std::vector<float> q;
  float scale = 1 / std::sqrt(float(dim));

  int first_pos() const { return length - tokens; }
  std::vector<float> query(int t) const {
    return {q.begin() + t * group * dim, q.begin() + (t + 1) * group * dim};
  }
  std::vector<float> on(Isa isa, const Cache& c) const {
    return attend(isa, c, q, group, first_pos(), tokens, window, scale);
  }
};

void expect_within_the_bound(const Case& x, const Cache& c, const std::vector<float>& y) {
  for (int t = 0; t < x.tokens; ++t) {
    const int64_t pos = x.first_pos() + t,
                  first = x.window > 0 ? std::max<int64_t>(0, pos - x.window + 1) : 0;
    for (int h = 0; h < x.group; ++h) {
      const float* from = &x.q[size_t((t * x.group + h) * x.dim)];
      const std::vector<double> qd(from, from + x.dim);
      std::vector<double> exact(qd.size());
      ops::attention<double>({.scale = x.scale, .window = x.window}, qd.data(), c.keys.data(),
                             c.values.data(), x.dim, pos, x.dim, exact.data());
      const double most = bound(qd.data(), c, first, pos, x.scale);
      for (int d = 0; d < x.dim; ++d)
        ASSERT_NEAR(y[size_t((t * x.group + h) * x.dim + d)], exact[size_t(d)], most);
    }
  }
}

void expect_the_same_alone_and_by_chunks(const Case& x, Isa isa, const Cache& c,
                                         const std::vector<float>& y) {
  const int row = x.group * x.dim;
  for (int t = 0; t < x.tokens; ++t) {
    const int pos = x.first_pos() + t;
    const std::vector<float> q = x.query(t), alone = attend(isa, c, q, x.group, pos, 1, x.window, x.scale),
                             parts = attend_by_chunks(isa, c, q, x.group, pos, x.window, x.scale);
    ASSERT_EQ(testing::first_difference(alone.data(), &y[size_t(t * row)], row), -1)
        << "a token beside others";
    ASSERT_EQ(testing::first_difference(parts.data(), &y[size_t(t * row)], row), -1) << "chunk by chunk";
  }
}

TEST(Attention, EqualsTheReferenceWithinTheBoundAndItselfOnEveryIsaGroupingAndSplit) {
  Random r(5);
  int cases = 0;
  for (int dim : {16, 48, 64, 80, 128, 256}) {
    for (int group : {1, 3, 4, 8, 9}) {
      for (int length : {1, 2, 15, 16, 17, 255, 256, 257, 600}) {
        ++cases;
        const KvTypes types = {kTypes[cases % 4], kTypes[(cases / 4 + cases) % 4]};
        const std::vector<float> k = testing::normals(r, size_t(length * dim)),
                                 v = testing::normals(r, size_t(length * dim));
        const int tokens = std::min(length, 1 + cases % 5);
        const std::vector<float> q = testing::normals(r, size_t(tokens * group * dim));
        const Cache scalar(Isa::scalar, types, dim, length, k, v);
        for (int window : {0, 1, 16, 100, 300}) {
          if (window > 1 && (cases + window) % 3 != 0) continue;
          const Case x{dim, group, length, tokens, window, q};
          SCOPED_TRACE(::testing::Message()
                       << "dim " << dim << " group " << group << " length " << length << " window " << window
                       << " types " << int(types.k) << int(types.v));
          const std::vector<float> y = x.on(Isa::scalar, scalar);
          testing::note_bits(y);
          ASSERT_NO_FATAL_FAILURE(expect_within_the_bound(x, scalar, y));
          for (Isa isa : testing::isas()) {
            const Cache own(isa, types, dim, length, k, v);
            ASSERT_EQ(own.memory, scalar.memory) << name(isa) << " stores other bytes";
            const std::vector<float> z = x.on(isa, own);
            ASSERT_EQ(testing::first_difference(y.data(), z.data(), int64_t(y.size())), -1) << name(isa);
            ASSERT_NO_FATAL_FAILURE(expect_the_same_alone_and_by_chunks(x, isa, own, y));
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
    const Cache c(isa, {KvType::f32, KvType::f32}, dim, length, k, v);
    for (float y : attend(isa, c, q, 1, length - 1, 1, 0, 1)) EXPECT_EQ(y, 300) << name(isa);
  }
}

// Element i of a page's K or V, the scale of q8_0 being number `scale`.
double element(KvType type, const uint8_t* page, int dim, int64_t i, int64_t scale) {
  if (type == KvType::f32) {
    float f;
    std::memcpy(&f, page + 4 * i, 4);
    return f;
  }
  uint16_t h;
  std::memcpy(&h, type == KvType::q8_0 ? page + kv_scales_at(dim) + 2 * scale : page + 2 * i, 2);
  if (type == KvType::q8_0) return double(int8_t(page[i])) * double(half_to_float(h));
  return type == KvType::f16 ? half_to_float(h) : bfloat16_to_float(h);
}

TEST(KvStore, RoundsToTheTypeOnceAndWritesNothingElse) {
  Random r(6);
  for (int dim : {16, 40, 80}) {
    const std::vector<float> x = testing::normals(r, size_t(dim), 100);
    for (KvType type : kTypes) {
      const std::vector<double> expected = rounded(type, x.data(), dim);
      const int64_t half = kv_head_bytes(type, dim);
      for (int pos : {0, 15, 16, 255}) {
        for (Isa isa : testing::isas()) {
          // Twice over different bytes: what differs afterwards was not written.
          std::vector<uint8_t> page(size_t(2 * half), 0xff), other(size_t(2 * half), 0);
          for (auto* p : {&page, &other}) {
            uint8_t* pages[] = {p->data()};
            const KvHead head{pages, 0, half, type, type, dim};
            kernels(isa).store_k(head, pos, x.data()), kernels(isa).store_v(head, pos, x.data());
          }
          int64_t written = 0;
          for (size_t i = 0; i < page.size(); ++i) written += page[i] == other[i];
          const int64_t scales = type == KvType::q8_0 ? 2 * kv_scales(dim) : 0;
          EXPECT_EQ(written, 2 * (dim * kv_element_bytes(type) + scales)) << "bytes written";
          for (int d = 0; d < dim; ++d) {
            const int64_t k_at = (int64_t(pos / 16) * dim + d) * 16 + pos % 16;
            const int64_t k_scale = (int64_t(pos / 16) * kv_scales(dim) + d / 32) * 16 + pos % 16;
            const int64_t v_at = int64_t(pos) * kv_dim(dim) + d,
                          v_scale = int64_t(pos) * kv_scales(dim) + d / 32;
            EXPECT_EQ(element(type, page.data(), dim, k_at, k_scale), expected[size_t(d)]);
            EXPECT_EQ(element(type, page.data() + half, dim, v_at, v_scale), expected[size_t(d)]);
          }
        }
      }
    }
  }
}

TEST(KvStore, OfEightBitsIsWithinHalfAStepAndKeepsWhatIsNotFinite) {
  Random r(7);
  const int dim = 64;
  for (float size : {1e-6f, 1.0f, 1e4f}) {
    const std::vector<float> x = testing::normals(r, size_t(dim), size);
    const std::vector<double> y = rounded(KvType::q8_0, x.data(), dim);
    for (int first = 0; first < dim; first += 32) {
      float largest = 0;
      for (int k = first; k < first + 32; ++k) largest = std::max(largest, std::fabs(x[size_t(k)]));
      // Half a step of a scale that is rounded to f16 (2^-11, or 2^-25 when subnormal), 127 steps away.
      const double step = double(largest) / 127, scale_error = std::max(step * 0x1p-11, 0x1p-25);
      for (int k = first; k < first + 32; ++k)
        EXPECT_NEAR(y[size_t(k)], x[size_t(k)], (step + scale_error) / 2 * (1 + 1e-5) + 127 * scale_error);
    }
  }
  std::vector<float> x(size_t(dim), 1.0f);
  x[3] = INFINITY, x[40] = NAN;
  for (Isa isa : testing::isas()) {
    const Cache c(isa, {KvType::q8_0, KvType::q8_0}, dim, 1, x, x);
    for (float y : attend(isa, c, std::vector<float>(size_t(dim), 1.0f), 1, 0, 1, 0, 1))
      EXPECT_FALSE(std::isfinite(y)) << name(isa);
  }
}

}  // namespace
}  // namespace plumb
