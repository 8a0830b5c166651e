// Attention of many tokens: a block takes 64 rows (token by token, the query heads of one kv head together) and goes over the
// chunks of keys at absolute positions in ascending order. Chains, trees and joins are those of one token (docs/numerics.md): in
// f32, as a sum on tensor cores has another order. A row depends neither on the rows beside it nor on how a prompt was split.
#include <cuda_fp16.h>

#include "cuda/heads.cuh"

namespace plumb::cuda {
namespace {

constexpr int kChunk = kAttentionChunk, kRows = 64, kKeys = 64, kBlock = 256;
constexpr int kPitch = kRows + 4, kScores = kChunk + 4;  // floats from one dim to the next, from one row of scores to the next

/// Eight elements of a row of queries, keys or values, as f32.
__device__ inline void load8(const float* p, float* out) {
  const float4 a = __ldcg(reinterpret_cast<const float4*>(p)), b = __ldcg(reinterpret_cast<const float4*>(p) + 1);
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}
__device__ inline void load8(const __half* p, float* out) {
  const uint4 raw = __ldcg(reinterpret_cast<const uint4*>(p));
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    out[i] = __half2float(__ushort_as_half(static_cast<unsigned short>((&raw.x)[i / 2] >> 16 * (i % 2))));
  }
}

// Shared memory, in floats.
struct Layout {
  int scores, q, tile, end;
  __host__ __device__ explicit Layout(int dim) {
    scores = 0, q = kRows * kScores, tile = q + dim * kPitch;
    const int values = kKeys * ((dim + 63) / 64 * 64), keys = dim * kPitch;
    end = tile + (values > keys ? values : keys);
  }
};

// Keys of a chunk that a row sees: [first, last).
struct Range {
  int first, last;
};
__device__ inline Range visible(int pos, int window, int start) {
  const int from = window > 0 && pos >= window ? pos - window + 1 : 0;
  const Range r{max(from - start, 0), min(pos + 1 - start, kChunk)};
  return r.first < r.last ? r : Range{0, 0};
}

/// Keys from `first` on, [dim][kPitch]; zeros behind the last.
template <class T>
__device__ void load_keys(const T* k, int64_t pitch, int dim, int first, int last, float* to) {
  for (int i = int(threadIdx.x); i < kKeys * dim / 8; i += kBlock) {
    const int key = i % kKeys, d = i / kKeys * 8;
    float x[8] = {};
    if (first + key < last) load8(k + (first + key) * pitch + d, x);
#pragma unroll
    for (int e = 0; e < 8; ++e) to[(d + e) * kPitch + key] = x[e];
  }
}

/// Values from `first` on, [kKeys][width]; zeros behind the last and beside the head.
template <class T>
__device__ void load_values(const T* v, int64_t pitch, int dim, int width, int first, int last, float* to) {
  for (int i = int(threadIdx.x); i < kKeys * width / 8; i += kBlock) {
    const int key = i / (width / 8), d = i % (width / 8) * 8;
    float x[8] = {};
    if (first + key < last && d < dim) load8(v + (first + key) * pitch + d, x);
    float4* at = reinterpret_cast<float4*>(to + key * width + d);
    at[0] = {x[0], x[1], x[2], x[3]}, at[1] = {x[4], x[5], x[6], x[7]};
  }
}

/// Four rows times four keys of a thread: scores[row][key] = scale times the chain of fma over the head.
__device__ void score(const float* q, const float* k, int dim, float scale, float* scores) {
  const int row = int(threadIdx.x) / 16 * 4, key = int(threadIdx.x) % 16 * 4;
  float acc[4][4] = {};
#pragma unroll 8
  for (int d = 0; d < dim; ++d) {
    const float4 a = *reinterpret_cast<const float4*>(q + d * kPitch + row), b = *reinterpret_cast<const float4*>(k + d * kPitch + key);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float x = (&a.x)[i];
      acc[i][0] = fmaf(b.x, x, acc[i][0]), acc[i][1] = fmaf(b.y, x, acc[i][1]);
      acc[i][2] = fmaf(b.z, x, acc[i][2]), acc[i][3] = fmaf(b.w, x, acc[i][3]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    *reinterpret_cast<float4*>(scores + (row + i) * kScores + key) = {acc[i][0] * scale, acc[i][1] * scale, acc[i][2] * scale,
                                                                      acc[i][3] * scale};
  }
}

/// What is known of each row: of the chunk, and of the chunks before; `old` and `now` are the factors of a join.
struct RowState {
  float chunk_largest[kRows], chunk_sum[kRows], largest[kRows], sum[kRows], old[kRows], now[kRows];
};

/// Scores of the keys [from, to) to weights, 0 where a row sees nothing; joins what is not the values'. A warp takes a row.
__device__ void soften(float* scores, const AttentionOp& op, int group, int first_row, int start, int from, int to, RowState& state) {
  const int lane = int(threadIdx.x) % 32;
  for (int r = int(threadIdx.x) / 32; r < kRows; r += kBlock / 32) {
    const int t = min((first_row + r) / group, op.n - 1);
    const Range at = visible(op.positions[t], op.window, start);
    float* e = scores + r * kScores;
    float m = -INFINITY, s = 0;
    for (int i = at.first + lane; i < at.last; i += 32) m = fmaxf(m, e[i]);
    m = warp_max(m);
    for (int i = from + lane; i < to; i += 32) e[i] = i >= at.first && i < at.last ? exp_negative(e[i] - m) : 0.0f;
    __syncwarp();
    for (int i = from + lane % 16; i < to; i += 16) s += e[i];  // 16 sums, twice
    for (int o = 8; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    if (lane != 0) continue;
    const float largest = state.largest[r], sum = state.sum[r];
    if (at.last == 0) {
      state.old[r] = 1, state.now[r] = 0;
    } else if (sum == 0.0f) {  // the row's first chunk
      state.largest[r] = m, state.sum[r] = s, state.old[r] = 0, state.now[r] = 1;
    } else {
      const float top = largest > m ? largest : m, old = exp_negative(largest - top), now = exp_negative(m - top);
      state.largest[r] = top, state.sum[r] = fmaf(s, now, sum * old), state.old[r] = old, state.now[r] = now;
    }
  }
}

/// acc += e v over the tile's keys in ascending order: four rows and, of every 64 dims, four.
template <int J>
__device__ void weigh(const float* scores, const float* v, float acc[4][J][4]) {
  const int row = int(threadIdx.x) / 16 * 4, d = int(threadIdx.x) % 16 * 4;
#pragma unroll 2
  for (int key = 0; key < kKeys; key += 4) {
    float4 e[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) e[i] = *reinterpret_cast<const float4*>(scores + (row + i) * kScores + key);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int j = 0; j < J; ++j) {
        const float4 x = *reinterpret_cast<const float4*>(v + (key + k) * 64 * J + 64 * j + d);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float w = (&e[i].x)[k];
          float* a = acc[i][j];
          a[0] = fmaf(w, x.x, a[0]), a[1] = fmaf(w, x.y, a[1]), a[2] = fmaf(w, x.z, a[2]), a[3] = fmaf(w, x.w, a[3]);
        }
      }
    }
  }
}

/// The thread's part of a chunk to that of the chunks before it.
template <int J>
__device__ void join(const RowState& state, int row, const float chunk[4][J][4], float o[4][J][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float old = state.old[row + i], now = state.now[row + i];
#pragma unroll
    for (int e = 0; e < 4 * J; ++e) {
      const float x = chunk[i][e / 4][e % 4];
      float& to = o[i][e / 4][e % 4];
      to = old == 0.0f && now == 1.0f ? x : fmaf(x, now, to * old);
    }
  }
}

/// The query rows of the block, [dim][kPitch].
__device__ void load_queries(const AttentionOp& op, int group, int first_row, int kv_head, float* to) {
  for (int i = int(threadIdx.x); i < kRows * op.dim / 8; i += kBlock) {
    const int r = i % kRows, d = i / kRows * 8, t = (first_row + r) / group;
    float x[8] = {};
    if (t < op.n) load8(op.q + t * op.q_stride + (kv_head * group + (first_row + r) % group) * op.dim + d, x);
#pragma unroll
    for (int e = 0; e < 8; ++e) to[(d + e) * kPitch + r] = x[e];
  }
}

template <class T, int J>
__global__ __launch_bounds__(kBlock, 1) void prompt_attention_kernel(const __grid_constant__ AttentionOp all, int group) {
  PLUMB_SHARED(float, shared);
  __shared__ RowState state;
  const Layout layout(all.dim);
  float *scores = shared, *q = shared + layout.q, *tile = shared + layout.tile;
  // Blocks of the last rows, which see most keys, first.
  const int first_row = int(gridDim.x - 1 - blockIdx.x) * kRows, kv_head = int(blockIdx.y);
  const int row = int(threadIdx.x) / 16 * 4, dim4 = int(threadIdx.x) % 16 * 4;
  let_successor_start();
  wait_for_predecessor();
  const AttentionOp op = run_of(all, int(blockIdx.z));
  if (first_row >= op.n * group) return;
  load_queries(op, group, first_row, kv_head, q);
  if (threadIdx.x < kRows) state.largest[threadIdx.x] = state.sum[threadIdx.x] = 0;
  const int lowest = op.positions[first_row / group], highest = op.positions[min((first_row + kRows - 1) / group, op.n - 1)];
  const int from = op.window > 0 && lowest >= op.window ? lowest - op.window + 1 : 0;
  const int64_t pitch = int64_t(op.kv_heads) * op.dim;
  float o[4][J][4] = {};
  for (int start = from / kChunk * kChunk; start <= highest; start += kChunk) {
    const int first = max(from - start, 0) / kKeys * kKeys, last = min(highest + 1 - start, kChunk);
    const uint8_t* page = op.pages.tables[start / kChunk];
    const T* k = reinterpret_cast<const T*>(page + op.k) + kv_head * op.dim;
    const T* v = reinterpret_cast<const T*>(page + op.v) + kv_head * op.dim;
    for (int key = first; key < last; key += kKeys) {
      __syncthreads();
      load_keys(k, pitch, op.dim, key, last, tile);
      __syncthreads();
      score(q, tile, op.dim, op.scale, scores + key);
    }
    __syncthreads();
    const int end = (last + kKeys - 1) / kKeys * kKeys;
    soften(scores, op, group, first_row, start, first, end, state);
    float chunk[4][J][4] = {};
    for (int key = first; key < last; key += kKeys) {
      __syncthreads();
      load_values(v, pitch, op.dim, 64 * J, key, last, tile);
      __syncthreads();
      weigh<J>(scores + key, tile, chunk);
    }
    join<J>(state, row, chunk, o);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int r = first_row + row + i, t = r / group;
    if (t >= op.n) continue;
    const float inverse = 1.0f / state.sum[row + i];
#pragma unroll
    for (int j = 0; j < J; ++j) {
      const int d = 64 * j + dim4;
      if (d >= op.dim) continue;
      *reinterpret_cast<float4*>(op.out + t * op.out_stride + (kv_head * group + r % group) * op.dim + d) = {
          o[i][j][0] * inverse, o[i][j][1] * inverse, o[i][j][2] * inverse, o[i][j][3] * inverse};
    }
  }
}

template <class T, int J>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned((op.longest * group + kRows - 1) / kRows), unsigned(op.kv_heads), unsigned(op.n_runs));
  return launch(c, prompt_attention_kernel<T, J>, grid, kBlock, Layout(op.dim).end * 4, op, group);
}

template <class T>
const char* by_width(Context* c, const AttentionOp& op) {
  switch ((op.dim + 63) / 64) {
    case 1: return run<T, 1>(c, op);
    case 2: return run<T, 2>(c, op);
    case 3: return run<T, 3>(c, op);
    default: return run<T, 4>(c, op);
  }
}

}  // namespace

const char* prompt_attention(Context* c, const AttentionOp& op) {
  return op.cache_f32 ? by_width<float>(c, op) : by_width<__half>(c, op);
}

}  // namespace plumb::cuda
