// Attention over several chunks against a plain f64 softmax.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/half.h"
#include "cuda/weights.h"

namespace plumb::cuda {
namespace {

struct Case {
  int heads, kv_heads, dim, pos, window;
};

std::vector<double> expected(const Case& c, const std::vector<float>& q, const std::vector<float>& k,
                             const std::vector<float>& v) {
  std::vector<double> out(q.size());
  const int first = c.window > 0 ? std::max(0, c.pos - c.window + 1) : 0;
  for (int h = 0; h < c.heads; ++h) {
    const int kv = h / (c.heads / c.kv_heads);
    std::vector<double> e;
    double sum = 0;
    for (int p = first; p <= c.pos; ++p) {
      double dot = 0;
      for (int d = 0; d < c.dim; ++d)
        dot += double(q[size_t(h * c.dim + d)]) * k[size_t((p * c.kv_heads + kv) * c.dim + d)];
      sum += e.emplace_back(std::exp(dot * 0.25));
    }
    for (int p = first; p <= c.pos; ++p) {
      for (int d = 0; d < c.dim; ++d)
        out[size_t(h * c.dim + d)] +=
            e[size_t(p - first)] / sum * v[size_t((p * c.kv_heads + kv) * c.dim + d)];
    }
  }
  return out;
}

// Pages of keys that lie one behind the other, and of values somewhere else.
void set_pages(const Api& api, Context* context, AttentionOp& op, const DeviceBuffer& k,
               const DeviceBuffer& v, DeviceBuffer& table) {
  const int64_t bytes = int64_t(kAttentionChunk) * op.kv_heads * op.dim * (op.cache_f32 ? 4 : 2);
  std::vector<uint8_t*> pages;
  for (int i = 0; i < op.chunks; ++i) pages.push_back(k.data() + i * bytes);
  table = DeviceBuffer(api, context, int64_t(pages.size() * sizeof(uint8_t*)), "test");
  check(api.upload(context, table.data(), pages.data(), int64_t(pages.size() * sizeof(uint8_t*))), "copy");
  op.pages = {reinterpret_cast<uint8_t* const*>(table.data()), nullptr, op.chunks};
  op.k = 0, op.v = v.data() - k.data();
}

// One token; keys and values in f32, or in f16 and all in halves, which moves a result as in run_prompt.
void run(const Api& api, const Case& c, bool halves = false) {
  Context* context = nullptr;
  DeviceInfo device{};
  check(api.open(0, &context, &device), "open");
  std::mt19937 random(5);
  const auto fill = [&](int n) {
    std::vector<float> x(size_t(n), 0.0f);
    for (float& f : x) f = std::uniform_real_distribution<float>(-1, 1)(random);
    return x;
  };
  const int chunks = c.pos / kAttentionChunk + 2, keys = c.pos + 1;
  const std::vector<float> q = fill(c.heads * c.dim);
  std::vector<float> k = fill(keys * c.kv_heads * c.dim), v = fill(keys * c.kv_heads * c.dim);
  std::vector<uint16_t> k16, v16;
  for (float& x : k) x = halves ? half_to_float(k16.emplace_back(float_to_half(x))) : x;
  for (float& x : v) x = halves ? half_to_float(v16.emplace_back(float_to_half(x))) : x;
  const auto upload = [&](const void* data, size_t bytes) {
    DeviceBuffer b(api, context, int64_t(bytes), "test");
    check(api.upload(context, b.data(), data, int64_t(bytes)), "copy");
    return b;
  };
  {
    const DeviceBuffer dq = upload(q.data(), q.size() * 4);
    const DeviceBuffer dk = halves ? upload(k16.data(), k16.size() * 2) : upload(k.data(), k.size() * 4);
    const DeviceBuffer dv = halves ? upload(v16.data(), v16.size() * 2) : upload(v.data(), v.size() * 4);
    const DeviceBuffer pos = upload(&c.pos, 4), out = upload(q.data(), q.size() * 4);
    const DeviceBuffer partial(api, context, int64_t(c.heads) * 2 * chunks * (c.dim + 2) * 4, "test");
    const std::vector<unsigned> zeros(size_t(c.heads), 0u);
    const DeviceBuffer counter = upload(zeros.data(), zeros.size() * 4);
    AttentionOp op{};
    op.q = dq.floats(), op.q_stride = op.out_stride = c.heads * c.dim, op.positions = pos.ints();
    op.out = out.floats(), op.partial = partial.floats();
    op.counter = reinterpret_cast<unsigned*>(counter.data()), op.scale = 0.25f, op.cache_f32 = !halves;
    op.window = c.window, op.heads = c.heads, op.kv_heads = c.kv_heads, op.dim = c.dim, op.n = 1;
    op.chunks = chunks, op.halves = halves;
    DeviceBuffer table;
    set_pages(api, context, op, dk, dv, table);
    for (int repetition = 0; repetition < 2; ++repetition) {  // the counters must be ready again
      check(api.attention(context, op), "attention");
      std::vector<float> got(q.size());
      check(api.download(context, got.data(), out.data(), int64_t(got.size()) * 4), "copy");
      const std::vector<double> want = expected(c, q, k, v);
      for (size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], want[i], halves ? 1e-3 : 2e-6) << i;  // values below 1, sums of at most 701
    }
  }
  api.close(context);
}

// The tokens at positions c.pos - n + 1 .. c.pos together, keys and values in f16; in halves, whose rounding
// of queries and weights moves a result by some 2^-12 of values below 1, and the last two alone once more,
// which must change no bit.
void run_prompt(const Api& api, const Case& c, int n, bool halves = false) {
  Context* context = nullptr;
  DeviceInfo device{};
  check(api.open(0, &context, &device), "open");
  std::mt19937 random(6);
  const auto fill = [&](int count, std::vector<uint16_t>* rounded) {
    std::vector<float> x(size_t(count), 0.0f);
    for (float& f : x) {
      f = std::uniform_real_distribution<float>(-1, 1)(random);
      if (rounded) f = half_to_float(rounded->emplace_back(float_to_half(f)));
    }
    return x;
  };
  std::vector<uint16_t> k16, v16;
  const int width = c.heads * c.dim, keys = (c.pos + 1) * c.kv_heads * c.dim;
  const std::vector<float> q = fill(n * width, nullptr), k = fill(keys, &k16), v = fill(keys, &v16);
  std::vector<int> positions;
  for (int t = 0; t < n; ++t) positions.push_back(c.pos - n + 1 + t);
  const auto upload = [&](const void* data, size_t bytes) {
    DeviceBuffer b(api, context, int64_t(bytes), "test");
    check(api.upload(context, b.data(), data, int64_t(bytes)), "copy");
    return b;
  };
  std::vector<float> got(q.size());
  {
    const DeviceBuffer dq = upload(q.data(), q.size() * 4), dk = upload(k16.data(), k16.size() * 2),
                       dv = upload(v16.data(), v16.size() * 2), out = upload(q.data(), q.size() * 4),
                       pos = upload(positions.data(), positions.size() * 4);
    AttentionOp op{};
    op.q = dq.floats(), op.q_stride = op.out_stride = width;
    op.positions = pos.ints(), op.out = out.floats(), op.scale = 0.25f, op.window = c.window;
    op.heads = c.heads, op.kv_heads = c.kv_heads, op.dim = c.dim, op.n = n;
    op.chunks = c.pos / kAttentionChunk + 1;
    op.halves = halves;
    const int runs[] = {0, n, n - 2, 2};  // all, or the last two
    const DeviceBuffer of = upload(runs, sizeof(runs));
    op.runs = of.ints(), op.runs_apart = op.n_runs = 1, op.longest = n;
    DeviceBuffer table;
    set_pages(api, context, op, dk, dv, table);
    check(api.attention(context, op), "attention");
    check(api.download(context, got.data(), out.data(), int64_t(got.size()) * 4), "copy");
    if (halves && n > 2) {
      op.runs += 2, op.longest = op.n = 2;
      check(api.attention(context, op), "attention");
      std::vector<float> again(q.size());
      check(api.download(context, again.data(), out.data(), int64_t(again.size()) * 4), "copy");
      ASSERT_EQ(again, got);
    }
  }
  for (int t = 0; t < n; ++t) {
    Case one = c;
    one.pos = positions[size_t(t)];
    const std::vector<double> want =
        expected(one, {q.begin() + t * width, q.begin() + (t + 1) * width}, k, v);
    for (int i = 0; i < width; ++i)
      ASSERT_NEAR(got[size_t(t * width + i)], want[size_t(i)], halves ? 1e-3 : 2e-6) << t << " " << i;
  }
  api.close(context);
}

constexpr std::pair<Case, int> kPrompts[] = {{{6, 2, 64, 150, 0}, 50},
                                             {{4, 1, 32, 99, 40}, 70},
                                             {{2, 1, 128, 130, 0}, 2},
                                             {{2, 2, 256, 70, 66}, 3},
                                             {{1, 1, 96, 66, 0}, 67}};

constexpr Case kCases[] = {
    {3, 1, 64, 700, 0}, {8, 1, 128, 300, 0}, {4, 4, 80, 511, 0}, {2, 1, 256, 600, 300}, {7, 1, 64, 255, 0}};

TEST(CudaAttention, OverSeveralChunksEqualsSoftmaxInF64OnTheProcessor) {
  for (const Case& c : kCases) run(*plumb_cuda_api(), c), run(*plumb_cuda_api(), c, true);
}

TEST(CudaAttention, OfPromptsEqualsSoftmaxInF64OnTheProcessor) {
  for (const auto& [c, n] : kPrompts) {
    run_prompt(*plumb_cuda_api(), c, n);
    run_prompt(*plumb_cuda_api(), c, n, true);
  }
}

TEST(CudaAttention, OfPromptsEqualsSoftmaxInF64OnTheDevice) {
  std::string why;
  const Api* api = find_library(&why);
  if (!api) GTEST_SKIP() << "no CUDA device: " << why;
  for (const auto& [c, n] : kPrompts) {
    run_prompt(*api, c, n);
    run_prompt(*api, c, n, true);
  }
}

TEST(CudaAttention, OverSeveralChunksEqualsSoftmaxInF64OnTheDevice) {
  std::string why;
  const Api* api = find_library(&why);
  if (!api) GTEST_SKIP() << "no CUDA device: " << why;
  for (const Case& c : kCases) run(*api, c), run(*api, c, true);
}

}  // namespace
}  // namespace plumb::cuda
