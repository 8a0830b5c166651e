// One token times matrices of floats: a warp takes a row, its lanes the row's units in turn, then a fixed tree. Its first weights
// are on their way before the activations are there.
#include "cuda/exact.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kWarps = kThreads / 32;

/// x, normalised if there is a norm, in shared memory: of each eight the first and the second four apart (F32 weights: as it is).
template <bool kSplit>
__device__ void prepare(const LinearOp& op, float* x, float4* out, float* parts) {
  const int n = op.w[0].columns;
  float factor = 1;
  if (op.norm) {
    for (int i = int(threadIdx.x); i < n / 4; i += kThreads) {
      reinterpret_cast<float4*>(x)[i] = __ldcg(reinterpret_cast<const float4*>(op.x) + i);
    }
    __syncthreads();
    factor = norm_factor(block_squares(x, n, parts), n, op.eps);
  }
  for (int i = int(threadIdx.x); i < n / 4; i += kThreads) {
    float4 v = op.norm ? reinterpret_cast<const float4*>(x)[i] : __ldcg(reinterpret_cast<const float4*>(op.x) + i);
    if (op.norm) {
      const float4 g = __ldg(reinterpret_cast<const float4*>(op.norm) + i);
      v = {v.x * factor * g.x, v.y * factor * g.y, v.z * factor * g.z, v.w * factor * g.w};
    }
    out[kSplit ? i % 2 * (n / 8) + i / 2 : i] = v;
  }
  __syncthreads();
}

struct Row {
  int part, row;
};

template <int R>
__device__ Row row_of(const LinearOp& op, int r) {
  Row at{0, r};
  if (R == 1) {
    while (at.part + 1 < op.parts && at.row >= op.w[at.part].rows) at.row -= op.w[at.part++].rows;
  }
  return at;
}

/// R = 1: rows of all parts; R = 2: row r of gate and of up together. J: units in flight of each row.
template <int F, int R, int J>
__global__ __launch_bounds__(kThreads, 2) void floats_kernel(const __grid_constant__ LinearOp op, int rows) {
  PLUMB_SHARED(float4, shared);  // the prepared row, then the row as it came
  __shared__ float parts[64];
  using U = Unit<F>;
  const int lane = int(threadIdx.x) % 32, columns = op.w[0].columns, units = columns / U::kWeights;
  // Rows of a block lie side by side, as those of a tile of F16 share memory's pages.
  const int first = int(blockIdx.x * kWarps + threadIdx.x / 32), step = int(gridDim.x) * kWarps;
  U w[R][J];
  const auto load = [&](Row at, int base) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Matrix& m = op.w[R == 2 ? r : at.part];
#pragma unroll
      for (int j = 0; j < J; ++j) {
        if (base + 32 * j < units) w[r][j].load_codes(m, U::index(m, at.row, base) + j * U::kStep);
      }
    }
  };
  let_successor_start();
  if (first < rows) load(row_of<R>(op, first), lane);
  wait_for_predecessor();
  prepare<U::kWeights == 8>(op, reinterpret_cast<float*>(shared + columns / 4), shared, parts);
  for (int row = first; row < rows; row += step) {
    const Row at = row_of<R>(op, row);
    float acc[R] = {};
    for (int base = lane; base < units; base += 32 * J) {
      if (row != first || base != lane) load(at, base);
#pragma unroll
      for (int j = 0; j < J; ++j) {
        const int u = base + 32 * j;
        if (u >= units) continue;
        const float4 x = shared[u], y = shared[U::kWeights == 8 ? columns / 8 + u : u];
#pragma unroll
        for (int r = 0; r < R; ++r) acc[r] = w[r][j].dot(acc[r], x, y);
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) acc[r] = warp_sum(acc[r]);
    if (lane != 0) continue;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const float* bias = op.bias[R == 2 ? r : at.part];
      if (bias) acc[r] += bias[at.row];
    }
    float y = acc[0];
    if constexpr (R == 2) y = activate(op.glu, acc[0]) * acc[1];
    if (op.residual) y = __ldcg(op.residual + at.row) + y;
    op.y[at.part][at.row] = y;
  }
}

template <int F, int R, int J>
const char* run(Context* c, const LinearOp& op) {
  int rows = op.w[0].rows;
  for (int i = 1; R == 1 && i < op.parts; ++i) rows += op.w[i].rows;
  const int blocks = (rows + kWarps - 1) / kWarps, most = 2 * c->processors;
  const int shared = op.w[0].columns * (op.norm ? 8 : 4);
  return launch(c, floats_kernel<F, R, J>, dim3(unsigned(blocks < most ? blocks : most)), kThreads, shared, op, rows);
}

}  // namespace

const char* float_linear(Context* c, const LinearOp& op) {
  const char* error = nullptr;
  with_float_format(op.w[0].format, [&](auto f) {
    error = op.glu ? run<f.value, 2, 2>(c, op) : run<f.value, 1, 4>(c, op);
  });
  return error;
}

}  // namespace plumb::cuda
