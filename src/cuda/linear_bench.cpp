// Matrices alone, in a chain of dependent launches in a graph: GB/s for one token, TFLOP/s for many, and
// whether both agree. Build: nvcc -O3 -std=c++20 -fmad=false -arch=sm_90a -Isrc
// src/cuda/{linear_bench.cpp,*.cu}; needs only api.h.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "cuda/api.h"

using namespace plumb::cuda;

namespace {

const Api& api = *plumb_cuda_api();
Context* context;

void ok(const char* error) {
  if (error) std::printf("failed: %s\n", error), std::exit(1);
}
uint8_t* device(int64_t bytes, const void* from = nullptr) {
  void* p = nullptr;
  ok(api.allocate(context, bytes, &p));
  if (from) ok(api.upload(context, p, from, bytes));
  return static_cast<uint8_t*>(p);
}
double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Shape {
  const char* name;
  int rows, columns, glu;
};

int64_t row_bytes(int f, int64_t n) {
  return f == kF16    ? n * 2
         : f == kQ4_0 ? n / 32 * 18
         : f == kQ8_0 ? n / 32 * 34
         : f == kQ4_K ? n / 256 * 144
                      : n / 256 * 210;
}

// The first of many tokens against the same token alone.
void compare_first(LinearOp op, int rows) {
  std::vector<float> many(static_cast<size_t>(rows)), one(many);
  ok(api.download(context, many.data(), op.y[0], rows * 4));
  op.n = 1;
  ok(api.linear(context, op));
  ok(api.download(context, one.data(), op.y[0], rows * 4));
  double difference = 0, size = 0;
  for (size_t i = 0; i < one.size(); ++i)
    difference += std::pow(one[i] - many[i], 2), size += std::pow(one[i], 2);
  std::printf("      one token against many: %.2e relative\n", std::sqrt(difference / size));
}

// All planes lie in one random buffer with the same small half in every scale; where they overlap does not
// matter.
void run(const char* format_name, int format, const Shape& s, int tokens, int rounding) {
  const int64_t bytes = row_bytes(format, s.columns) * s.rows * (s.glu ? 2 : 1);
  const int copies = int(std::max<int64_t>(2, (int64_t(1) << 29) / bytes));
  static const std::vector<uint16_t> kNoise = [] {  // at least 16 bits a weight
    std::vector<uint16_t> all(size_t(14336) * 4096);
    for (uint16_t& h : all) h = uint16_t(0x1c00 | (std::rand() & 0x83ff));
    return all;
  }();
  const std::span<const uint16_t> noise(kNoise.data(),
                                        std::min(kNoise.size(), size_t(s.rows) * size_t(s.columns)));
  std::vector<LinearOp> ops;
  std::vector<float> x(size_t(tokens) * size_t(s.columns));
  for (float& v : x) v = float(std::rand()) / float(RAND_MAX) - 0.5f;
  float* dx = reinterpret_cast<float*>(device(int64_t(x.size()) * 4, x.data()));
  float* y = reinterpret_cast<float*>(device(int64_t(tokens) * s.rows * 4));
  uint16_t* x16 = reinterpret_cast<uint16_t*>(
      device(int64_t((tokens + 127) / 128 * 128) * ((s.columns + 63) / 64 * 64) * 2));
  float* scale = reinterpret_cast<float*>(device(tokens * 4));
  const int64_t in_codes = int64_t((tokens + 7) / 8 * 8) * s.columns;
  uint8_t* planes = device(2 * in_codes);
  const Codes codes{planes, planes + in_codes, reinterpret_cast<float*>(device(in_codes / 4)),
                    device(in_codes / 8 + kRefinedBytes)};
  std::vector<void*> all = {dx, y, x16, scale, planes, codes.scales, codes.refined};
  for (int c = 0; c < copies; ++c) {
    LinearOp op{};
    op.x = dx, op.x_stride = s.columns, op.x16 = x16, op.x16_scale = scale, op.n = tokens;
    op.codes = codes, op.rounding = rounding;
    const bool few = tokens > 1 && tokens <= kFewTokens && format != kF16;
    if (few && rounding == kHalves) op.rounding = 2, op.own_order = 1;
    op.glu = few || tokens == 1 || rounding == kHalves ? s.glu : 0, op.parts = op.glu ? 2 : 1;
    for (int i = 0; i < op.parts; ++i) {
      uint8_t* w = device(int64_t(noise.size()) * 2, noise.data());
      all.push_back(w), op.w[i] = {w, w, w, w, format, s.rows, s.columns, s.rows};
    }
    op.y[0] = y, op.y_stride[0] = s.rows;
    ops.push_back(op);
  }
  ok(api.half(context, {dx, s.columns, x16, scale, tokens, s.columns, nullptr, 0, ops[0].own_order}));
  ok(api.round(context, {dx, s.columns, codes, tokens, s.columns, 2, nullptr, 0}));
  Graph* graph = nullptr;
  ok(api.begin(context));
  for (const LinearOp& op : ops) ok(api.linear(context, op));
  ok(api.end(context, &graph));
  float sink = 0;
  double best = 1e9;
  for (int i = 0; i < 7; ++i) {
    const double start = now();
    ok(api.run(context, graph));
    ok(api.download(context, &sink, y, 4));
    best = std::min(best, now() - start);
  }
  const double each = best / copies, flops = 2.0 * tokens * s.rows * s.columns * ops[0].parts;
  std::printf("%-5s %-5s %-14s n=%-5d %8.2f us %7.0f GB/s %6.1f TFLOP/s\n", format_name,
              rounding == kHalves ? "f16" : "16", s.name, tokens, each * 1e6, double(bytes) / each / 1e9,
              flops / each / 1e12);
  if (tokens > 1) compare_first(ops.back(), s.rows);
  for (void* p : all) api.release(context, p);
  api.drop(context, graph);
}

}  // namespace

// All, or the format, the number of a shape, the tokens, and 0 or 1 for the device's own order.
int main(int argc, char** argv) {
  DeviceInfo info{};
  ok(api.open(0, &context, &info));
  const std::pair<const char*, int> formats[] = {
      {"Q4_0", kQ4_0}, {"Q4_K", kQ4_K}, {"Q6_K", kQ6_K}, {"Q8_0", kQ8_0}, {"F16", kF16}};
  const Shape shapes[] = {{"2048x2048", 2048, 2048, 0},  {"5632x2048 glu", 5632, 2048, 1},
                          {"2048x5632", 2048, 5632, 0},  {"32000x2048", 32000, 2048, 0},
                          {"4096x4096", 4096, 4096, 0},  {"14336x4096 glu", 14336, 4096, 1},
                          {"4096x14336", 4096, 14336, 0}};
  for (const auto& [name, format] : formats) {
    if (argc == 5 && std::strcmp(name, argv[1]) == 0) {
      run(name, format, shapes[std::atoi(argv[2])], std::atoi(argv[3]), std::atoi(argv[4]) ? kHalves : 2);
    }
    if (argc == 5) continue;
    for (int rounding : {2, kHalves}) {
      for (const Shape& s : shapes) run(name, format, s, 1, rounding);
      for (int n : {4, 8, 16}) {
        if (format != kF16) {
          for (int i : {0, 1, 4, 5, 6}) run(name, format, shapes[i], n, rounding);
        }
      }
      for (int n : {512, 2048}) run(name, format, shapes[5], n, rounding);
      for (int i : {0, 1, 4, 6}) run(name, format, shapes[i], 512, rounding);
    }
  }
}
