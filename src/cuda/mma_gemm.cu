// Many tokens times a matrix in halves, where there is no wgmma: weights become f16 on their way into shared memory. mma.sync
// m16n8k16, f32 sums, k ascending in steps of 16 whatever the number of tokens: an output does not depend on how many tokens stand
// beside it.
#include "cuda/device.cuh"
#include "cuda/exact.cuh"
#include "cuda/half.cuh"

namespace plumb::cuda {
namespace {

constexpr int kM = 128, kN = 128, kK = 64, kPitch = kK + 8, kBlock = 256;  // pitch: rows of a tile fall into different banks
constexpr int kTile = kM * kPitch;                                         // halves of either operand
static_assert(kM == kN);

struct Problem {
  Matrix w;
  const uint8_t* x;       // tiles, x16_offset
  const float* scale;     // [n]
  const float* bias;
  const float* residual;  // [n, residual_stride]
  float* y;               // [n, y_stride]
  int64_t y_stride, residual_stride;
  int n, glu;  // glu: this is up, and y holds gate; 0 none, 1 silu, 2 gelu
};

// Each thread decodes 32 weights of one row in a step of 64.
template <int F>
struct WeightPiece {
  static constexpr int kUnits = 32 / Unit<F>::kWeights;
  Unit<F> unit[kUnits];
  int first;  // unit of the row; -1: outside
  __device__ void load(const Problem& p, int row, int k) {
    first = row < p.w.rows && k < p.w.columns ? k / Unit<F>::kWeights : -1;
    if (first < 0) return;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) unit[i].load(p.w, row, first + i);
  }
  __device__ void store(__half* to) const {
    uint4 out[4];
    __half* h = reinterpret_cast<__half*>(out);
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if constexpr (quantised(F)) {
        decode_halves(unit[i], first, out);
      } else {
        unit[i].decode(first + i, [&](int e, float v) { h[i * Unit<F>::kWeights + e] = __float2half_rn(v); });
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) reinterpret_cast<uint4*>(to)[i] = first < 0 ? uint4{0, 0, 0, 0} : out[i];
  }
};

__device__ void load_activations(const Problem& p, __half* tile, int first_token, int k) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int i = int(threadIdx.x) + kBlock * j, t = i / 8, at = k + i % 8 * 8;
    const bool valid = first_token + t < p.n && at < p.w.columns;
    copy16(tile + t * kPitch + i % 8 * 8, p.x + (valid ? x16_offset(first_token + t, at / 8, p.w.columns) : 0), valid);
  }
  commit_copies();
}

// A warp's 64 x 32 part of the tile: 4 x 4 tiles of 16 x 8.
__device__ void multiply_step(float acc[4][4][4], const __half* a, const __half* b) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int k = 0; k < kK; k += 16) {
    uint32_t fa[4][4], fb[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) load_matrices(fa[i], a + (16 * i + lane % 16) * kPitch + k + lane / 16 * 8);
#pragma unroll
    for (int i = 0; i < 2; ++i) load_matrices(fb[i], b + (16 * i + lane % 8 + lane / 16 * 8) * kPitch + k + lane / 8 % 2 * 8);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) multiply(acc[m][n], fa[m], fb[n / 2][n % 2 * 2], fb[n / 2][n % 2 * 2 + 1]);
    }
  }
}

__device__ void write(const Problem& p, const float acc[4][4][4], int first_row, int first_token) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int t = first_token + 8 * n + lane % 4 * 2 + i;
      if (t >= p.n) continue;
      const float scale = p.scale[t] * (quantised(p.w.format) ? 1 / kCodeScale : 1.0f);
#pragma unroll
      for (int m = 0; m < 8; ++m) {
        const int r = first_row + 8 * m + lane / 4;
        if (r >= p.w.rows) continue;
        float y = acc[m / 2][n][m % 2 * 2 + i] * scale;
        if (p.bias) y += p.bias[r];
        if (p.residual) y = p.residual[t * p.residual_stride + r] + y;
        float& to = p.y[t * p.y_stride + r];
        to = p.glu ? activate(p.glu, to) * y : y;
      }
    }
  }
}

template <int F>
__global__ __launch_bounds__(kBlock, 2) void gemm_kernel(const __grid_constant__ Problem p) {
  PLUMB_SHARED(__half, tiles);  // two stages of weights [kM][kPitch] and activations [kN][kPitch]
  const int row = int(blockIdx.y) * kM, token = int(blockIdx.x) * kN, warp = int(threadIdx.x) / 32;
  const int my_row = int(threadIdx.x) / 2, my_k = int(threadIdx.x) % 2 * 32;
  let_successor_start();
  WeightPiece<F> piece;
  piece.load(p, row + my_row, my_k);
  wait_for_predecessor();
  float acc[4][4][4] = {};
  load_activations(p, tiles + kTile, token, 0);
  piece.store(tiles + my_row * kPitch + my_k);
  for (int k = 0, stage = 0; k < p.w.columns; k += kK, stage ^= 1) {
    __half *now = tiles + stage * 2 * kTile, *next = tiles + (stage ^ 1) * 2 * kTile;
    wait_for_copies();
    __syncthreads();
    const bool more = k + kK < p.w.columns;
    if (more) {
      piece.load(p, row + my_row, k + kK + my_k);
      load_activations(p, next + kTile, token, k + kK);
    }
    multiply_step(acc, now + warp / 4 * 64 * kPitch, now + kTile + warp % 4 * 32 * kPitch);
    if (more) piece.store(next + my_row * kPitch + my_k);
  }
  write(p, acc, row + warp / 4 * 64, token + warp % 4 * 32);
}

}  // namespace

const char* mma_gemm(Context* c, const LinearOp& op) {
  const char* error = nullptr;
  for (int i = 0; i < op.parts && !error; ++i) {
    const Problem p{op.w[i], reinterpret_cast<const uint8_t*>(op.x16), op.x16_scale, op.bias[i], op.residual, op.y[i],
                    op.y_stride[i], op.residual_stride, op.n, i == 1 ? op.glu : 0};
    const dim3 grid(unsigned((op.n + kN - 1) / kN), unsigned((op.w[i].rows + kM - 1) / kM));
    with_format(op.w[i].format, [&](auto f) { error = launch(c, gemm_kernel<f.value>, grid, kBlock, kTile * 8, p); });
  }
  return error;
}

}  // namespace plumb::cuda
