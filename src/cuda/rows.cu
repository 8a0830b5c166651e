// Operations on rows and heads: embedding, norms, rope and the cache, activations, rounding to f16.
#include "cuda/exact.cuh"
#include "cuda/half.cuh"
#include "cuda/heads.cuh"

namespace plumb::cuda {
namespace {

template <int F>
__global__ void embed_kernel(const __grid_constant__ EmbedOp op) {
  let_successor_start();
  wait_for_predecessor();
  const int units = op.table.columns / Unit<F>::kWeights, u = int(blockIdx.x * blockDim.x + threadIdx.x), t = int(blockIdx.y);
  if (u >= units) return;
  Unit<F> unit;
  unit.load(op.table, op.tokens[t], u);
  float* out = op.out + t * op.stride + u * Unit<F>::kWeights;
  unit.decode(u, [&](int e, float v) { out[e] = op.scale == 1.0f ? v : v * op.scale; });
}

/// y = x scale; y = norm(y, post); sum = residual + y; out = norm(sum), each part where given. Whole rows, or head by head.
__global__ __launch_bounds__(kThreads) void row_kernel(const __grid_constant__ RowOp op) {
  PLUMB_SHARED(float, work);  // [dim]
  __shared__ float parts[2][64];
  let_successor_start();
  wait_for_predecessor();
  const int t = int(blockIdx.x), in = op.rows ? op.rows[t] : t, head = int(blockIdx.y);
  const float* x = op.x + in * op.x_stride + head * op.dim;
  const float* residual = op.residual ? op.residual + in * op.residual_stride + head * op.dim : nullptr;
  float* sum = op.sum ? op.sum + in * op.sum_stride + head * op.dim : nullptr;
  float* out = op.out + t * op.out_stride + head * op.dim;
  float post = 1, r = 1;
  if (op.post) {
    for (int i = int(threadIdx.x); i < op.dim; i += kThreads) work[i] = op.scale == 1.0f ? x[i] : x[i] * op.scale;
    __syncthreads();
    post = norm_factor(block_squares(work, op.dim, parts[0]), op.dim, op.post_eps);
    __syncthreads();
  }
  for (int i = int(threadIdx.x); i < op.dim; i += kThreads) {
    float y = op.post ? work[i] * post * op.post[i] : op.scale == 1.0f ? x[i] : x[i] * op.scale;
    if (residual) y = residual[i] + y;
    if (sum) sum[i] = y;
    work[i] = y;
  }
  if (op.norm) {
    __syncthreads();
    r = norm_factor(block_squares(work, op.dim, parts[1]), op.dim, op.eps);
  }
  for (int i = int(threadIdx.x); i < op.dim; i += kThreads) out[i] = op.norm ? work[i] * r * op.norm[i] : work[i];
}

/// A warp per head of a token.
template <class T>
__global__ void heads_kernel(const __grid_constant__ HeadsOp all) {
  let_successor_start();
  wait_for_predecessor();
  int index = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), part = 0;
  while (part < all.parts && index >= all.n * all.part[part].heads) index -= all.n * all.part[part++].heads;
  if (part == all.parts) return;
  const HeadsOp::Part& op = all.part[part];
  const int t = index / op.heads, head = index % op.heads;
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

/// Where round_kernel writes a row.
struct CodesOut {
  uint32_t *high, *low;
  float2* scales;
  Refined* window;
  int first;  // window
  __device__ void codes(int lane, uint32_t h, uint32_t l) {
    high[first * 32 + lane] = h;
    if (low) low[first * 32 + lane] = l;
  }
  __device__ void scale(int block, const BlockScale& b) { scales[first * 4 + block] = {b.s, b.t}; }
  __device__ void refined(const Refined& r) { window[first] = r; }
};

template <bool kWide>
__global__ __launch_bounds__(kThreads) void round_kernel(const __grid_constant__ RoundOp op) {
  let_successor_start();
  wait_for_predecessor();
  const int64_t t = blockIdx.x;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, windows = (op.columns + kWindow - 1) / kWindow;
  const Codes& c = op.codes;
  CodesOut out{reinterpret_cast<uint32_t*>(c.high + t * op.columns), kWide ? reinterpret_cast<uint32_t*>(c.low + t * op.columns) : nullptr,
               reinterpret_cast<float2*>(c.scales) + t * (op.columns / 32), static_cast<Refined*>(c.refined) + t * windows, 0};
  for (int w = warp; w < windows; w += kThreads / 32) {
    const int column = w * kWindow + lane * 4;
    float4 v = {0, 0, 0, 0};
    if (column < op.columns) v = *reinterpret_cast<const float4*>(op.x + t * op.x_stride + column);
    out.first = w;
    round_window<kWide>(v, column < op.columns, op.rounding == 1, out);
  }
}

/// The largest of every thread's; every thread gets it.
__device__ float block_max(float v, float* of_warps) {
  v = warp_max(v);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = v;
  __syncthreads();
  return warp_max(of_warps[threadIdx.x % (kThreads / 32)]);
}

__global__ __launch_bounds__(kThreads) void half_kernel(const __grid_constant__ HalfOp op) {
  PLUMB_SHARED(float, row);  // [columns], if normalised
  __shared__ float of_warps[kThreads / 32], parts[64];
  let_successor_start();
  wait_for_predecessor();
  const int t = int(blockIdx.x);
  const float* x = op.x + t * op.x_stride;
  float factor = 1, largest = 0;
  const auto four = [&](int i) {
    float4 v = *reinterpret_cast<const float4*>(x + i);
    if (!op.norm) return v;
    const float4 g = __ldg(reinterpret_cast<const float4*>(op.norm + i));
    v = {v.x * factor * g.x, v.y * factor * g.y, v.z * factor * g.z, v.w * factor * g.w};
    return v;
  };
  if (op.norm) {
    for (int i = int(threadIdx.x); i < op.columns; i += kThreads) row[i] = x[i];
    __syncthreads();
    factor = norm_factor(block_squares(row, op.columns, parts), op.columns, op.eps);
  }
  for (int i = int(threadIdx.x) * 4; i < op.columns; i += kThreads * 4) {
    const float4 v = four(i);
    largest = fmaxf(fmaxf(largest, fmaxf(fabsf(v.x), fabsf(v.y))), fmaxf(fabsf(v.z), fabsf(v.w)));
  }
  largest = block_max(largest, of_warps);
  const int e = largest >= 0x1p-100f ? ilogbf(largest) - 11 : 0;
  const float inverse = ldexpf(1.0f, -e);
  uint8_t* out = reinterpret_cast<uint8_t*>(op.x16);
  const int pieces = (op.columns + kTileColumns - 1) / kTileColumns * 8;
  for (int piece = int(threadIdx.x); piece < pieces; piece += kThreads) {
    uint4 halves = {0, 0, 0, 0};
    if (piece * 8 < op.columns) {
      const float4 a = four(piece * 8), b = four(piece * 8 + 4);
      halves = {bits(__floats2half2_rn(a.x * inverse, a.y * inverse)), bits(__floats2half2_rn(a.z * inverse, a.w * inverse)),
                bits(__floats2half2_rn(b.x * inverse, b.y * inverse)), bits(__floats2half2_rn(b.z * inverse, b.w * inverse))};
    }
    *reinterpret_cast<uint4*>(out + x16_offset(t, piece, op.columns)) = halves;
  }
  if (threadIdx.x == 0) op.x16_scale[t] = ldexpf(1.0f, e);
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
  return launch(c, row_kernel, dim3(unsigned(op.n), unsigned(op.heads)), kThreads, op.dim * 4, op);
}

const char* heads(Context* c, const HeadsOp& op) {
  int heads = 0;
  for (int i = 0; i < op.parts; ++i) heads += op.part[i].heads;
  const dim3 grid(unsigned(op.n * heads + 3) / 4);
  return op.cache_f32 ? launch(c, heads_kernel<float>, grid, 128, 0, op) : launch(c, heads_kernel<__half>, grid, 128, 0, op);
}

const char* glu(Context* c, const GluOp& op) {
  return launch(c, glu_kernel, dim3(unsigned((op.stride + 255) / 256), unsigned(op.n)), 256, 0, op);
}

const char* round_rows(Context* c, const RoundOp& op) {
  const dim3 grid{unsigned(op.n)};
  return op.rounding == 2 ? launch(c, round_kernel<true>, grid, kThreads, 0, op) : launch(c, round_kernel<false>, grid, kThreads, 0, op);
}

const char* to_half(Context* c, const HalfOp& op) {
  return launch(c, half_kernel, dim3(unsigned(op.n)), kThreads, op.norm ? op.columns * 4 : 0, op);
}

}  // namespace plumb::cuda
