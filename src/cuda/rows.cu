// Operations on rows and heads: embedding, norms, rope and the cache, activations, rounding to f16.
#include "cuda/device.cuh"
#include "cuda/heads.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

template <int F>
__global__ void embed_kernel(const __grid_constant__ EmbedOp op) {
  let_successor_start();
  wait_for_predecessor();
  const int units = op.table.columns / Unit<F>::kWeights, u = int(blockIdx.x * blockDim.x + threadIdx.x), t = int(blockIdx.y);
  if (u >= units) return;
  Unit<F> unit;
  unit.load(op.table, int64_t(op.tokens[t]) * units + u);
  float* out = op.out + t * op.stride + u * Unit<F>::kWeights;
  unit.decode(u, [&](int e, float v) { out[e] = op.scale == 1.0f ? v : v * op.scale; });
}

/// y = x scale; y = norm(y, post); sum = residual + y; out = norm(sum), each part where given. Whole rows, or head by head.
__global__ __launch_bounds__(kThreads) void row_kernel(const __grid_constant__ RowOp op) {
  __shared__ float scratch[2][kThreads / 32];
  let_successor_start();
  wait_for_predecessor();
  const int t = int(blockIdx.x), in = op.rows ? op.rows[t] : t, head = int(blockIdx.y);
  const float* x = op.x + in * op.x_stride + head * op.dim;
  const float* residual = op.residual ? op.residual + in * op.residual_stride + head * op.dim : nullptr;
  float* sum = op.sum ? op.sum + in * op.sum_stride + head * op.dim : nullptr;
  float* out = op.out + t * op.out_stride + head * op.dim;
  float post = 1;
  if (op.post) post = 1.0f / sqrtf(row_squares(x, op.dim, op.scale, scratch[0]) / float(op.dim) + op.post_eps);
  const auto before = [&](int i) {
    float y = op.scale == 1.0f ? x[i] : x[i] * op.scale;
    if (op.post) y = y * post * op.post[i];
    return residual ? residual[i] + y : y;
  };
  float ss = 0, r = 1;
  if (op.norm) {
    for (int i = int(threadIdx.x) * 4; i < op.dim; i += kThreads * 4) {
      for (int j = 0; j < 4; ++j) {
        const float y = before(i + j);
        ss = fmaf(y, y, ss);
      }
    }
    r = 1.0f / sqrtf(block_sum(ss, scratch[1]) / float(op.dim) + op.eps);
  }
  for (int i = int(threadIdx.x); i < op.dim; i += kThreads) {
    const float y = before(i);
    if (sum) sum[i] = y;
    out[i] = op.norm ? y * r * op.norm[i] : y;
  }
}

/// A warp per head of a token.
template <class T>
__global__ void heads_kernel(const __grid_constant__ HeadsOp all) {
  let_successor_start();
  wait_for_predecessor();
  const HeadsOp::Part& op = all.part[blockIdx.y];
  const int index = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const int t = index / op.heads, head = index % op.heads;
  if (t >= all.n) return;
  const int64_t pos = all.positions[t];
  turn_head(op, op.x + t * op.x_stride + head * op.dim, pos, [&](int i, float v) {
    if (op.y) op.y[t * op.y_stride + head * op.dim + i] = v;
    if (op.cache) static_cast<T*>(op.cache)[(pos * op.heads + head) * op.dim + i] = T(v);
  });
}

__global__ void glu_kernel(const __grid_constant__ GluOp op) {
  let_successor_start();
  wait_for_predecessor();
  const int64_t at = blockIdx.y * op.stride + blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (blockIdx.x * blockDim.x + threadIdx.x < op.stride) op.out[at] = activate(op.act, op.gate[at]) * op.up[at];
}

__global__ __launch_bounds__(kThreads) void half_kernel(const __grid_constant__ HalfOp op) {
  __shared__ float largest[kThreads / 32];
  let_successor_start();
  wait_for_predecessor();
  const float* x = op.x + blockIdx.x * op.x_stride;
  float a = 0;
  for (int i = int(threadIdx.x); i < op.columns; i += kThreads) a = fmaxf(a, fabsf(x[i]));
  a = warp_max(a);
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = a;
  __syncthreads();
  a = warp_max(largest[threadIdx.x % (kThreads / 32)]);
  const int e = a >= 0x1p-100f ? ilogbf(a) - 11 : 0;
  const float scale = ldexpf(1.0f, e), inverse = ldexpf(1.0f, -e);
  __half* out = reinterpret_cast<__half*>(op.x16) + int64_t(blockIdx.x) * op.columns;
  for (int i = int(threadIdx.x); i < op.columns; i += kThreads) out[i] = __float2half_rn(x[i] * inverse);
  if (threadIdx.x == 0) op.x16_scale[blockIdx.x] = scale;
}

}  // namespace

const char* embed(Context* c, const EmbedOp& op) {
  const char* error = nullptr;
  with_format(op.table.format, [&](auto f) {
    const int units = op.table.columns / Unit<f.value>::kWeights;
    error = launch(c, embed_kernel<f.value>, dim3(unsigned(units + 127) / 128, unsigned(op.n)), 128, 0, op);
  });
  return error;
}

const char* row(Context* c, const RowOp& op) {
  return launch(c, row_kernel, dim3(unsigned(op.n), unsigned(op.heads)), kThreads, 0, op);
}

const char* heads(Context* c, const HeadsOp& op) {
  int most = 0;
  for (int i = 0; i < op.parts; ++i) most = op.part[i].heads > most ? op.part[i].heads : most;
  const dim3 grid(unsigned(op.n * most + 3) / 4, unsigned(op.parts));
  return op.cache_f32 ? launch(c, heads_kernel<float>, grid, 128, 0, op) : launch(c, heads_kernel<__half>, grid, 128, 0, op);
}

const char* glu(Context* c, const GluOp& op) {
  return launch(c, glu_kernel, dim3(unsigned((op.stride + 255) / 256), unsigned(op.n)), 256, 0, op);
}

const char* to_half(Context* c, const HalfOp& op) { return launch(c, half_kernel, dim3(unsigned(op.n)), kThreads, 0, op); }

}  // namespace plumb::cuda
