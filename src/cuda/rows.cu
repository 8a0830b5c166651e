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

constexpr int kHeadsOfWarp = 4;  // side by side: what they need is asked for together

template <class T>
__global__ void heads_kernel(const __grid_constant__ HeadsOp all) {
  let_successor_start();
  wait_for_predecessor();
  int index = int(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32), part = 0;
  const auto warps = [&](int p) { return all.n * ((all.part[p].heads + kHeadsOfWarp - 1) / kHeadsOfWarp); };
  while (part < all.parts && index >= warps(part)) index -= warps(part++);
  if (part == all.parts) return;
  const HeadsOp::Part& op = all.part[part];
  const int t = index % all.n, head = index / all.n * kHeadsOfWarp;
  const int64_t pos = all.positions[t];
  T* cache = nullptr;
  if (op.cache >= 0) {
    cache = reinterpret_cast<T*>(table_of(all.pages, t)[pos / kAttentionChunk] + op.cache);
    cache += (pos % kAttentionChunk * op.heads + head) * op.dim;
  }
  float* y = op.y ? op.y + t * op.y_stride + head * op.dim : nullptr;
  turn_heads<kHeadsOfWarp>(op, op.x + t * op.x_stride + head * op.dim, op.heads - head, pos, [&](int i, float v) {
    if (y) y[i] = v;
    if (cache) cache[i] = T(v);
  });
}

__global__ void glu_kernel(const __grid_constant__ GluOp op) {
  let_successor_start();
  wait_for_predecessor();
  const int64_t at = blockIdx.y * op.stride + blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  if (blockIdx.x * blockDim.x + threadIdx.x < op.stride) op.out[at] = activate(op.act, op.gate[at]) * op.up[at];
}

/// Where round_kernel writes row t: in rows for code_gemm.cu.
template <bool kWide>
struct CodesOut {
  const RoundOp& op;
  int t, first;  // first: window
  __device__ void codes(int lane, uint32_t h, uint32_t l) {
    const int64_t at = (int64_t(t) * op.columns + first * kWindow) / 4 + lane;
    reinterpret_cast<uint32_t*>(op.codes.high)[at] = h;
    if (kWide) reinterpret_cast<uint32_t*>(op.codes.low)[at] = l;
  }
  __device__ void scale(int block, const BlockScale& b) {
    reinterpret_cast<float2*>(op.codes.scales)[int64_t(t) * (op.columns / 32) + first * 4 + block] = {b.s, b.t};
  }
  __device__ void refined(const Refined& r) {
    static_cast<Refined*>(op.codes.refined)[int64_t(t) * ((op.columns + kWindow - 1) / kWindow) + first] = r;
  }
};

/// In octets of tokens for few_linear.cu: of a unit each lane's words of the tensor core's operand side by side, both of the high
/// plane and then both of the low; of units and windows the eight tokens side by side.
template <bool kWide>
struct OctetsOut {
  const RoundOp& op;
  int t, first;
  __device__ int64_t of(int per_row, int i) const { return int64_t(t / 8) * per_row + i; }
  __device__ void codes(int lane, uint32_t h, uint32_t l) {
    const int64_t at = of(op.columns / 32, first * 4 + lane / 8) * 32 + t % 8 * 4 + lane % 4;
    uint32_t* to = reinterpret_cast<uint32_t*>(op.codes.high) + at * (kWide ? 4 : 2) + lane % 8 / 4;
    to[0] = h;
    if (kWide) to[2] = l;
  }
  __device__ void scale(int block, const BlockScale& b) {
    reinterpret_cast<float2*>(op.codes.scales)[of(op.columns / 32, first * 4 + block) * 8 + t % 8] = {b.s, b.t};
  }
  __device__ void refined(const Refined& r) {
    static_cast<Refined*>(op.codes.refined)[of((op.columns + kWindow - 1) / kWindow, first) * 8 + t % 8] = r;
  }
};

template <bool kWide, template <bool> class Out>
__global__ __launch_bounds__(kThreads) void round_kernel(const __grid_constant__ RoundOp op) {
  PLUMB_SHARED(float, row);  // [columns], if normalised
  __shared__ float parts[64];
  let_successor_start();
  wait_for_predecessor();
  const int t = int(blockIdx.x), warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const float* x = op.x + t * op.x_stride;
  float factor = 1;
  if (op.norm) {
    for (int i = int(threadIdx.x); i < op.columns; i += kThreads) row[i] = x[i];
    __syncthreads();
    factor = norm_factor(block_squares(row, op.columns, parts), op.columns, op.eps);
  }
  Out<kWide> out{op, t, 0};
  const int all = kThreads / 32 * int(gridDim.y);
  for (int w = int(blockIdx.y) * (kThreads / 32) + warp; w < (op.columns + kWindow - 1) / kWindow; w += all) {
    const int column = w * kWindow + lane * 4;
    float4 v = {0, 0, 0, 0};
    if (column < op.columns) v = *reinterpret_cast<const float4*>(x + column);
    if (op.norm && column < op.columns) {
      const float4 g = __ldg(reinterpret_cast<const float4*>(op.norm + column));
      v = {v.x * factor * g.x, v.y * factor * g.y, v.z * factor * g.z, v.w * factor * g.w};
    }
    out.first = w;
    round_window<kWide>(v, column < op.columns, op.rounding == 1, out);
  }
}

constexpr int kOctetThreads = 1024;

/// The largest of every thread's; every thread gets it.
__device__ float block_max(float v, float* of_warps) {
  v = warp_max(v);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = v;
  __syncthreads();
  return warp_max(of_warps[threadIdx.x % (kThreads / 32)]);
}

/// A row per block; a thread holds H pieces of 8 columns, all of which it asks for at once.
template <int H>
__global__ __launch_bounds__(kThreads) void half_kernel(const __grid_constant__ HalfOp op) {
  PLUMB_SHARED(float, row);  // [columns], if normalised
  __shared__ float of_warps[kThreads / 32], parts[64];
  const int t = int(blockIdx.x), first = int(threadIdx.x) * 8, step = kThreads * 8;
  const float* x = op.x + t * op.x_stride;
  const auto column = [&](int i) { return first + i / 2 * step + i % 2 * 4; };
  const auto four = [&](const float* from, int i) {
    return column(i) < op.columns ? *reinterpret_cast<const float4*>(from + column(i)) : float4{};
  };
  float4 v[2 * H], weights[2];  // of a norm: before its input is there, if there is a register for each
  float factor = 1, largest = 0;
  let_successor_start();
  if (H == 1 && op.norm) weights[0] = four(op.norm, 0), weights[1] = four(op.norm, 1);
  wait_for_predecessor();
#pragma unroll
  for (int i = 0; i < 2 * H; ++i) v[i] = four(x, i);
  if (op.norm) {
#pragma unroll
    for (int i = 0; i < 2 * H; ++i) {
      if (column(i) < op.columns) *reinterpret_cast<float4*>(row + column(i)) = v[i];
    }
    __syncthreads();
    factor = norm_factor(block_squares(row, op.columns, parts), op.columns, op.eps);
  }
#pragma unroll
  for (int i = 0; i < 2 * H; ++i) {
    float4& f = v[i];
    if (op.norm) {
      const float4 g = H == 1 ? weights[i % 2] : four(op.norm, i);
      f = {f.x * factor * g.x, f.y * factor * g.y, f.z * factor * g.z, f.w * factor * g.w};
    }
    largest = fmaxf(fmaxf(largest, fmaxf(fabsf(f.x), fabsf(f.y))), fmaxf(fabsf(f.z), fabsf(f.w)));
  }
  largest = block_max(largest, of_warps);
  const int e = largest >= 0x1p-100f ? ilogbf(largest) - 11 : 0;
  const float inverse = ldexpf(1.0f, -e);
  uint8_t* out = reinterpret_cast<uint8_t*>(op.x16);
  const int columns = (op.columns + kTileColumns - 1) / kTileColumns * kTileColumns;
#pragma unroll
  for (int i = 0; i < 2 * H; i += 2) {
    const float4 a = v[i], b = v[i + 1];
    if (column(i) >= columns) break;
    *reinterpret_cast<uint4*>(out + x16_offset(t, column(i) / 8, op.columns)) = {
        bits(__floats2half2_rn(a.x * inverse, a.y * inverse)), bits(__floats2half2_rn(a.z * inverse, a.w * inverse)),
        bits(__floats2half2_rn(b.x * inverse, b.y * inverse)), bits(__floats2half2_rn(b.z * inverse, b.w * inverse))};
  }
  if (threadIdx.x == 0) op.x16_scale[t] = ldexpf(1.0f, e);
}

/// The same for a few tokens, with the norm's factor in the scale: the row is read once.
__global__ __launch_bounds__(kOctetThreads) void octets_kernel(const __grid_constant__ HalfOp op) {
  constexpr int kHeld = 4;  // of a thread's four columns at a time, in registers
  __shared__ float squares[32], largest[32];
  const int t = int(blockIdx.x), lane = int(threadIdx.x) % 32, columns = (op.columns + 127) / 128 * 128;
  const float* x = op.x + t * op.x_stride;
  float sum = 0, top = 0;
  const auto weights = [&](int i) {
    return op.norm && i < op.columns ? __ldg(reinterpret_cast<const float4*>(op.norm + i)) : float4{};
  };
  const auto four = [&](int i, const float4& g) {
    if (i >= op.columns) return float4{0, 0, 0, 0};
    const float4 v = *reinterpret_cast<const float4*>(x + i);
    if (!op.norm) return v;
    sum = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, sum))));
    return float4{v.x * g.x, v.y * g.y, v.z * g.z, v.w * g.w};
  };
  const auto see = [&](const float4& v) { top = fmaxf(fmaxf(top, fmaxf(fabsf(v.x), fabsf(v.y))), fmaxf(fabsf(v.z), fabsf(v.w))); };
  const int first = int(threadIdx.x) * 4, step = kOctetThreads * 4;
  let_successor_start();
  float4 held[kHeld];  // first the norm's weights, which need not wait
#pragma unroll
  for (int k = 0; k < kHeld; ++k) held[k] = weights(first + k * step);
  wait_for_predecessor();
#pragma unroll
  for (int k = 0; k < kHeld; ++k) held[k] = four(first + k * step, held[k]);
#pragma unroll
  for (int k = 0; k < kHeld; ++k) see(held[k]);
  for (int i = first + kHeld * step; i < columns; i += step) see(four(i, weights(i)));
  sum = warp_sum(sum), top = warp_max(top);
  if (lane == 0) squares[threadIdx.x / 32] = sum, largest[threadIdx.x / 32] = top;
  __syncthreads();
  sum = warp_sum(squares[lane]), top = warp_max(largest[lane]);
  const int e = top >= 0x1p-100f ? ilogbf(top) - 11 : 0;
  const float inverse = ldexpf(1.0f, -e);
  const auto put = [&](int i, const float4& v) {
    *reinterpret_cast<uint2*>(reinterpret_cast<uint8_t*>(op.x16) + octet_offset(t, i, op.columns)) = {
        bits(__floats2half2_rn(v.x * inverse, v.y * inverse)), bits(__floats2half2_rn(v.z * inverse, v.w * inverse))};
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (first + k * step < columns) put(first + k * step, held[k]);
  }
  const float squares_of_row = sum;
  for (int i = first + kHeld * step; i < columns; i += step) put(i, four(i, weights(i)));
  if (threadIdx.x == 0) op.x16_scale[t] = ldexpf(op.norm ? norm_factor(squares_of_row, op.columns, op.eps) : 1.0f, e);
}

__global__ void deliver_kernel(const __grid_constant__ DeliverOp op) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  let_successor_start();
  wait_for_predecessor();
  if (i >= op.size) return;
  const float v = op.from[blockIdx.y * op.stride + i];
  op.to[blockIdx.y * op.stride + i] = v;
  if ((__float_as_uint(v) & 0x7f800000u) == 0x7f800000u) *op.bad = 1;
}

/// A thread takes a float, or four of one part.
template <class V>
__global__ void gather_kernel(const __grid_constant__ GatherOp op) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x) * int(sizeof(V) / 4), t = int(blockIdx.y);
  int part = 0;
  while (part < op.parts && i >= op.part[part].first + op.part[part].size) ++part;
  if (part == op.parts) return;
  const GatherOp::Part& from = op.part[part];
  const float* x = from.from + t * from.stride + (i - from.first);
  *reinterpret_cast<V*>(op.to + t * op.to_stride + i) = __ldcg(reinterpret_cast<const V*>(x));
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
  int warps = 0;
  for (int i = 0; i < op.parts; ++i) warps += (op.part[i].heads + kHeadsOfWarp - 1) / kHeadsOfWarp;
  const dim3 grid(unsigned(op.n * warps + 3) / 4);
  return op.cache_f32 ? launch(c, heads_kernel<float>, grid, 128, 0, op) : launch(c, heads_kernel<__half>, grid, 128, 0, op);
}

const char* glu(Context* c, const GluOp& op) {
  return launch(c, glu_kernel, dim3(unsigned((op.stride + 255) / 256), unsigned(op.n)), 256, 0, op);
}

const char* deliver(Context* c, const DeliverOp& op) {
  return launch(c, deliver_kernel, dim3(unsigned((op.size + 255) / 256), unsigned(op.n)), 256, 0, op);
}

const char* gather(Context* c, const GatherOp& op) {
  int all = 0, odd = 0;
  for (int i = 0; i < op.parts; ++i) all += op.part[i].size, odd |= op.part[i].size % 4;
  const dim3 grid(unsigned((odd ? all : all / 4) + 127) / 128, unsigned(op.n));
  return odd ? launch_late(c, gather_kernel<float>, grid, 128, 0, op) : launch_late(c, gather_kernel<float4>, grid, 128, 0, op);
}

const char* round_rows(Context* c, const RoundOp& op) {
  // Without a norm, which reads the whole row, a block takes a window per warp.
  const int windows = (op.columns + kWindow - 1) / kWindow, warps = kThreads / 32;
  const dim3 grid(unsigned(op.n), op.norm ? 1 : unsigned((windows + warps - 1) / warps));
  const int shared = op.norm ? op.columns * 4 : 0;
  if (op.n <= kFewTokens) {
    return op.rounding == 2 ? launch(c, round_kernel<true, OctetsOut>, grid, kThreads, shared, op)
                            : launch(c, round_kernel<false, OctetsOut>, grid, kThreads, shared, op);
  }
  return op.rounding == 2 ? launch(c, round_kernel<true, CodesOut>, grid, kThreads, shared, op)
                          : launch(c, round_kernel<false, CodesOut>, grid, kThreads, shared, op);
}

const char* to_half(Context* c, const HalfOp& op) {
  if (op.octets) return launch(c, octets_kernel, dim3(unsigned(op.n)), kOctetThreads, 0, op);
  constexpr int kAtOnce = kThreads * 8;
  const auto run = [&](auto kernel) { return launch(c, kernel, dim3(unsigned(op.n)), kThreads, op.norm ? op.columns * 4 : 0, op); };
  if (op.columns <= kAtOnce) return run(half_kernel<1>);
  if (op.columns <= 4 * kAtOnce) return run(half_kernel<4>);
  // More than a thread has registers for: not fast, but no model has such rows.
  return op.columns <= 16 * kAtOnce ? run(half_kernel<16>) : "rows of more than 65,536 columns";
}

}  // namespace plumb::cuda
