// One token times matrices: a warp takes a row, its lanes the row's units in turn, then a fixed tree. Every block normalises and
// rounds the activations itself, which spares a kernel; its first weights are on their way before the activations are there.
#include <type_traits>

#include "cuda/device.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kWarps = kThreads / 32;

int shared_bytes(int columns, bool codes) { return codes ? columns / 32 * (32 + int(sizeof(BlockScale))) : columns * 4 + 64; }

/// Sum over the block of what each thread adds, for load_codes and load_floats: the factor of the norm.
__device__ float norm_factor(const LinearOp& op, float squares, float* scratch) {
  return 1.0f / sqrtf(block_sum(squares, scratch) / float(op.w[0].columns) + op.eps);
}

/// x, times the weights of the norm if there is one, as int8 blocks of 32: A = max |x|, s = A / 127, code = nearest(x 127 / A);
/// 0 below 2^-100. Returns what the norm has still to multiply: one pass over x, as the codes do not depend on that factor.
__device__ float load_codes(const LinearOp& op, uint8_t* shared, float* scratch) {
  const int n = op.w[0].columns, units = n / 32;
  uint32_t* low = reinterpret_cast<uint32_t*>(shared);
  uint32_t* high = low + units * 4;
  BlockScale* scale = reinterpret_cast<BlockScale*>(high + units * 4);
  float squares = 0;
#pragma unroll 4
  for (int first = 0; first < n; first += kThreads * 4) {
    const int i = first + int(threadIdx.x) * 4;
    float4 v = {0, 0, 0, 0};
    if (i < n) v = __ldcg(reinterpret_cast<const float4*>(op.x + i));
    if (op.norm && i < n) {
      const float4 g = __ldg(reinterpret_cast<const float4*>(op.norm + i));
      squares = fmaf(v.x, v.x, squares), squares = fmaf(v.y, v.y, squares);
      squares = fmaf(v.z, v.z, squares), squares = fmaf(v.w, v.w, squares);
      v.x = v.x * g.x, v.y = v.y * g.y, v.z = v.z * g.z, v.w = v.w * g.w;
    }
    float a = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    for (int o = 1; o < 8; o <<= 1) a = fmaxf(a, __shfl_xor_sync(~0u, a, o));
    const bool some = a >= 0x1p-100f;
    const float s = some ? a / 127.0f : 0.0f, k = some ? 127.0f / a : 0.0f;
    const int c0 = __float2int_rn(v.x * k), c1 = __float2int_rn(v.y * k), c2 = __float2int_rn(v.z * k);
    const int c3 = __float2int_rn(v.w * k);
    int sum = c0 + c1 + c2 + c3;
    for (int o = 1; o < 4; o <<= 1) sum += __shfl_xor_sync(~0u, sum, o);
    const int other = __shfl_xor_sync(~0u, sum, 4), w = i / 4 % 8, block = i / 32;
    if (i >= n) continue;
    (w < 4 ? low : high)[block * 4 + w % 4] = uint32_t(c0 & 255) | uint32_t(c1 & 255) << 8 | uint32_t(c2 & 255) << 16 | uint32_t(c3) << 24;
    if (w == 0) scale[block] = {s, sum, other, s * float(sum + other)};
  }
  return op.norm ? norm_factor(op, squares, scratch) : 1.0f;
}

/// The same in f32: the first and second four of each eight apart (F32 weights: as they are).
__device__ float load_floats(const LinearOp& op, bool split, uint8_t* shared, float* scratch) {
  const int n = op.w[0].columns;
  float4* out = reinterpret_cast<float4*>(shared);
  float squares = 0;
#pragma unroll 4
  for (int i = int(threadIdx.x); i < n / 4; i += kThreads) {
    float4 v = __ldcg(reinterpret_cast<const float4*>(op.x) + i);
    if (op.norm) {
      const float4 g = __ldg(reinterpret_cast<const float4*>(op.norm) + i);
      squares = fmaf(v.x, v.x, squares), squares = fmaf(v.y, v.y, squares);
      squares = fmaf(v.z, v.z, squares), squares = fmaf(v.w, v.w, squares);
      v.x = v.x * g.x, v.y = v.y * g.y, v.z = v.z * g.z, v.w = v.w * g.w;
    }
    out[split ? i % 2 * (n / 8) + i / 2 : i] = v;
  }
  return op.norm ? norm_factor(op, squares, scratch) : 1.0f;
}

template <int F>
__device__ Activation activation(int columns, uint8_t* shared) {
  Activation a{};
  if constexpr (Unit<F>::kWeights == 32) {
    a.low = reinterpret_cast<const uint4*>(shared);
    a.high = a.low + columns / 32;
    a.scale = reinterpret_cast<const BlockScale*>(a.high + columns / 32);
  } else {
    a.even = reinterpret_cast<const float4*>(shared);
    a.odd = a.even + columns / 8;
  }
  return a;
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
__global__ __launch_bounds__(kThreads, 2) void gemv(const __grid_constant__ LinearOp op, int rows) {
  PLUMB_SHARED(uint8_t, shared);
  __shared__ float scratch[kWarps];
  using U = Unit<F>;
  const int lane = int(threadIdx.x) % 32, columns = op.w[0].columns, units = columns / U::kWeights;
  const int first = int(blockIdx.x + gridDim.x * (threadIdx.x / 32)), step = int(gridDim.x) * kWarps;
  U w[R][J];
  const auto load = [&](Row at, int base) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
      for (int j = 0; j < J; ++j) {
        if (base + 32 * j < units) w[r][j].load(op.w[R == 2 ? r : at.part], int64_t(at.row) * units + base + 32 * j);
      }
    }
  };
  let_successor_start();
  if (first < rows) load(row_of<R>(op, first), lane);
  wait_for_predecessor();
  float factor = 1;
  if constexpr (U::kWeights == 32) {
    factor = load_codes(op, shared, scratch);
  } else {
    factor = load_floats(op, U::kWeights == 8, shared, scratch);
  }
  __syncthreads();
  const Activation a = activation<F>(columns, shared);
  for (int row = first; row < rows; row += step) {
    const Row at = row_of<R>(op, row);
    float acc[R] = {};
    for (int base = lane; base < units; base += 32 * J) {
      if (row != first || base != lane) load(at, base);
#pragma unroll
      for (int j = 0; j < J; ++j) {
        if (base + 32 * j >= units) continue;
#pragma unroll
        for (int r = 0; r < R; ++r) acc[r] = w[r][j].dot(acc[r], a, base + 32 * j);
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r) acc[r] = warp_sum(acc[r]) * factor;
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
  const int shared = shared_bytes(op.w[0].columns, Unit<F>::kWeights == 32);
  return launch(c, gemv<F, R, J>, dim3(unsigned(blocks < most ? blocks : most)), kThreads, shared, op, rows);
}

}  // namespace

const char* linear(Context* c, const LinearOp& op) {
  if (op.n > 1) return gemm(c, op);
  const char* error = nullptr;
  with_format(op.w[0].format, [&](auto f) {
    error = op.glu ? run<f.value, 2, 2>(c, op) : run<f.value, 1, 4>(c, op);
  });
  return error;
}

}  // namespace plumb::cuda
