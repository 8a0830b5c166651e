// Attention of many tokens on tensor cores: a block takes 128 rows (token by token, the query heads of one kv head together)
// and goes over the keys in tiles of 64 at absolute positions, ascending. A masked key adds an exact zero and a tile without
// keys leaves a row as it was, so a row does not depend on the rows beside it nor on how a prompt was split.
#include "cuda/device.cuh"
#include "cuda/tensor.cuh"

namespace plumb::cuda {
namespace {

constexpr int kRows = 128, kKeys = 64, kBlock = 256;

__device__ uint32_t pack(float low, float high) {
  return uint32_t(__half_as_ushort(__float2half_rn(low))) | uint32_t(__half_as_ushort(__float2half_rn(high))) << 16;
}
__device__ float rounded(float x) { return __half2float(__float2half_rn(x)); }

/// Query rows of the block into shared memory, as f16.
template <int D>
__device__ void load_queries(const AttentionOp& op, int group, int first_row, int kv_head, __half* to) {
  for (int i = int(threadIdx.x); i < kRows * D / 8; i += kBlock) {
    const int r = i / (D / 8), d = i % (D / 8) * 8, t = (first_row + r) / group;
    uint4 out = {0, 0, 0, 0};
    if (t < op.n) {
      const float* q = op.q + t * op.q_stride + (kv_head * group + (first_row + r) % group) * D + d;
      const float4 a = __ldcg(reinterpret_cast<const float4*>(q)), b = __ldcg(reinterpret_cast<const float4*>(q) + 1);
      out = {pack(a.x, a.y), pack(a.z, a.w), pack(b.x, b.y), pack(b.z, b.w)};
    }
    *reinterpret_cast<uint4*>(to + r * (D + 8) + d) = out;
  }
}

/// Keys first .. first + 63 and their values; zeros behind the last.
template <int D>
__device__ void load_keys(const AttentionOp& op, int kv_head, int first, int last, __half* k, __half* v) {
#pragma unroll
  for (int i = int(threadIdx.x); i < kKeys * D / 8; i += kBlock) {
    const int r = i / (D / 8), d = i % (D / 8) * 8, key = first + r;
    const int64_t from = (int64_t(key <= last ? key : 0) * op.kv_heads + kv_head) * D + d;
    copy16(k + r * (D + 8) + d, static_cast<const __half*>(op.k) + from, key <= last);
    copy16(v + r * (D + 8) + d, static_cast<const __half*>(op.v) + from, key <= last);
  }
  commit_copies();
}

/// s [16][64] = q k^T.
template <int D>
__device__ void score(const uint32_t q[D / 16][4], const __half* k, float s[8][4]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < 8; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
  for (int d = 0; d < D / 16; ++d) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      uint32_t b[4];
      load_matrices(b, k + (16 * n + lane % 8 + lane / 16 * 8) * (D + 8) + 16 * d + lane / 8 % 2 * 8);
      multiply(s[2 * n], q[d], b[0], b[1]);
      multiply(s[2 * n + 1], q[d], b[2], b[3]);
    }
  }
}

/// o [16][D] += p v, p [16][64] rounded to f16.
template <int D>
__device__ void weigh(const float p[8][4], const __half* v, float o[D / 8][4]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float *low = p[2 * k], *high = p[2 * k + 1];
    const uint32_t a[4] = {pack(low[0], low[1]), pack(low[2], low[3]), pack(high[0], high[1]), pack(high[2], high[3])};
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      uint32_t b[4];
      load_matrices_transposed(b, v + (16 * k + lane % 16) * (D + 8) + 16 * d + lane / 16 * 8);
      multiply(o[2 * d], a, b[0], b[1]);
      multiply(o[2 * d + 1], a, b[2], b[3]);
    }
  }
}

struct Row {
  int from, to;     // keys it sees
  float most, sum;  // so far; the sum of this thread's columns
};

/// Scores to weights of the row's half of each s[n] (`at` 0 or 2); returns what the sums so far are to be multiplied by.
__device__ float soften(float s[8][4], int at, int first, float scale, Row& row) {
  const int lane = int(threadIdx.x) % 32;
  float most = row.most;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int key = first + 8 * n + lane % 4 * 2 + i;
      float& x = s[n][at + i];
      x = key >= row.from && key <= row.to ? x * scale : -INFINITY;
      most = fmaxf(most, x);
    }
  }
  for (int o = 1; o < 4; o <<= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, o));
  const float base = most == -INFINITY ? 0.0f : most, old = exp2f(row.most - base);
  row.most = most, row.sum *= old;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float& x = s[n][at + i];
      x = rounded(exp2f(x - base));
      row.sum += x;
    }
  }
  return old;
}

template <int D>
__device__ void write(const AttentionOp& op, int group, int row, int kv_head, const float o[D / 8][4], int at, Row& seen) {
  for (int i = 1; i < 4; i <<= 1) seen.sum += __shfl_xor_sync(~0u, seen.sum, i);
  const int t = row / group, lane = int(threadIdx.x) % 32;
  if (t >= op.n) return;
  float* out = op.out + t * op.out_stride + (kv_head * group + row % group) * D + lane % 4 * 2;
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    out[8 * n] = o[n][at] / seen.sum;
    out[8 * n + 1] = o[n][at + 1] / seen.sum;
  }
}

template <int D>
__global__ __launch_bounds__(kBlock) void prompt_attention_kernel(const __grid_constant__ AttentionOp op, int group) {
  PLUMB_SHARED(__half, tiles);  // two stages of keys and values, [64][D + 8] each; the queries before them
  constexpr int kTile = kKeys * (D + 8);
  const int first_row = int(gridDim.x - 1 - blockIdx.x) * kRows, kv_head = int(blockIdx.y);  // longest rows first
  const int lane = int(threadIdx.x) % 32, warp_row = int(threadIdx.x) / 32 * 16;
  const int last_token = min(op.n - 1, (first_row + kRows - 1) / group);
  const float scale = op.scale * 1.44269504f;
  let_successor_start();
  wait_for_predecessor();
  load_queries<D>(op, group, first_row, kv_head, tiles);
  __syncthreads();
  uint32_t q[D / 16][4];
#pragma unroll
  for (int d = 0; d < D / 16; ++d) load_matrices(q[d], tiles + (warp_row + lane % 16) * (D + 8) + 16 * d + lane / 16 * 8);
  __syncthreads();
  const auto first_key = [&](int pos) { return op.window > 0 && pos >= op.window ? pos - op.window + 1 : 0; };
  Row rows[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = (first_row + warp_row + lane / 4 + 8 * i) / group, pos = t < op.n ? op.positions[t] : -1;
    rows[i] = {first_key(pos), pos, -INFINITY, 0.0f};
  }
  const int last = op.positions[last_token];
  int first = first_key(op.positions[first_row / group]) / kKeys * kKeys;
  load_keys<D>(op, kv_head, first, last, tiles, tiles + kTile);
  float o[D / 8][4] = {};
  for (int stage = 0; first <= last; first += kKeys, stage ^= 1) {
    wait_for_copies();
    __syncthreads();
    const __half* now = tiles + stage * 2 * kTile;
    __half* next = tiles + (stage ^ 1) * 2 * kTile;
    if (first + kKeys <= last) load_keys<D>(op, kv_head, first + kKeys, last, next, next + kTile);
    float s[8][4];
    score<D>(q, now, s);
    const float a = soften(s, 0, first, scale, rows[0]), b = soften(s, 2, first, scale, rows[1]);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) o[n][0] *= a, o[n][1] *= a, o[n][2] *= b, o[n][3] *= b;
    weigh<D>(s, now + kTile, o);
  }
  write<D>(op, group, first_row + warp_row + lane / 4, kv_head, o, 0, rows[0]);
  write<D>(op, group, first_row + warp_row + lane / 4 + 8, kv_head, o, 2, rows[1]);
}

template <int D>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned((op.n * group + kRows - 1) / kRows), unsigned(op.kv_heads));
  return launch(c, prompt_attention_kernel<D>, grid, kBlock, 4 * kKeys * (D + 8) * 2, op, group);
}

}  // namespace

const char* prompt_attention(Context* c, const AttentionOp& op) {
  switch (op.dim) {
    case 32: return run<32>(c, op);
    case 64: return run<64>(c, op);
    case 96: return run<96>(c, op);
    case 128: return run<128>(c, op);
    default: return run<256>(c, op);
  }
}

}  // namespace plumb::cuda
