// Any number of tokens times a matrix in f32, for --arith f32: weights are decoded as quant/ decodes them, and an output is one
// chain of fma over ascending columns, which is the CPU's for weights in floating point. Made to be right, not fast.
#include "cuda/device.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kTile = 64, kK = 32, kBlock = 256, kPitch = kTile + 4;

struct Problem {
  Matrix w;
  const float* x;  // [n, x_stride]
  const float *bias, *residual;
  float* y;
  int64_t x_stride, y_stride, residual_stride;
  int n;
};

/// 32 columns of 64 rows of the matrix, [column][kPitch].
template <int F>
__device__ void load_weights(const Problem& p, int first_row, int k, float* to) {
  constexpr int kUnits = kK / Unit<F>::kWeights;
  for (int i = int(threadIdx.x); i < kTile * kUnits; i += kBlock) {
    const int r = i / kUnits, u = i % kUnits, row = first_row + r;
    if (row >= p.w.rows) continue;
    const int of_row = k / Unit<F>::kWeights + u;
    Unit<F> unit;
    unit.load(p.w, row, of_row);
    unit.decode(of_row, [&](int e, float v) { to[(u * Unit<F>::kWeights + e) * kPitch + r] = v; });
  }
}

template <int F>
__global__ __launch_bounds__(kBlock) void f32_kernel(const __grid_constant__ Problem p) {
  __align__(16) __shared__ float w[kK * kPitch], x[kK * kPitch];
  const int row = int(blockIdx.y) * kTile, token = int(blockIdx.x) * kTile;
  const int my_row = int(threadIdx.x) % 16 * 4, my_token = int(threadIdx.x) / 16 * 4;
  let_successor_start();
  wait_for_predecessor();
  float acc[4][4] = {};  // tokens, rows
  for (int k = 0; k < p.w.columns; k += kK) {
    __syncthreads();
    load_weights<F>(p, row, k, w);
    for (int i = int(threadIdx.x); i < kTile * kK; i += kBlock) {
      const int t = i / kK, c = i % kK;
      x[c * kPitch + t] = token + t < p.n ? __ldcg(p.x + (token + t) * p.x_stride + k + c) : 0.0f;
    }
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < kK; ++c) {
      const float4 a = *reinterpret_cast<const float4*>(x + c * kPitch + my_token);
      const float4 b = *reinterpret_cast<const float4*>(w + c * kPitch + my_row);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
#pragma unroll
        for (int r = 0; r < 4; ++r) acc[t][r] = fmaf((&b.x)[r], (&a.x)[t], acc[t][r]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const int t = token + my_token + i / 4, r = row + my_row + i % 4;
    if (t >= p.n || r >= p.w.rows) continue;
    float y = acc[i / 4][i % 4];
    if (p.bias) y += p.bias[r];
    if (p.residual) y = p.residual[t * p.residual_stride + r] + y;
    p.y[t * p.y_stride + r] = y;
  }
}

}  // namespace

const char* f32_gemm(Context* c, const LinearOp& op) {
  const char* error = nullptr;
  for (int i = 0; i < op.parts && !error; ++i) {
    const Problem p{op.w[i], op.x, op.bias[i], op.residual, op.y[i], op.x_stride, op.y_stride[i], op.residual_stride, op.n};
    const dim3 grid(unsigned((op.n + kTile - 1) / kTile), unsigned((op.w[i].rows + kTile - 1) / kTile));
    with_format(op.w[i].format, [&](auto f) { error = launch(c, f32_kernel<f.value>, grid, kBlock, 0, p); });
  }
  return error;
}

}  // namespace plumb::cuda
