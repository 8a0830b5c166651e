// Attention of the query heads of one kv head over one chunk of 256 keys, a block each; the last block of a token to finish
// merges the chunks in ascending order. Masked keys are skipped by position. Chunks lie at absolute positions, so the sums do
// not depend on how a prompt was split.
#include <cuda_fp16.h>

#include "cuda/device.cuh"

namespace plumb::cuda {
namespace {

constexpr int kChunk = 256, kWarps = 8;

template <class T>
__device__ void load8(const T* p, float* out) {
  if constexpr (sizeof(T) == 2) {
    const uint4 raw = __ldcg(reinterpret_cast<const uint4*>(p));
    const __half2* h = reinterpret_cast<const __half2*>(&raw);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 f = __half22float2(h[i]);
      out[2 * i] = f.x, out[2 * i + 1] = f.y;
    }
  } else {
    const float4 a = __ldcg(reinterpret_cast<const float4*>(p)), b = __ldcg(reinterpret_cast<const float4*>(p) + 1);
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  }
}

__device__ int group_lanes(int dim) {  // lanes that share a key: a power of two, 8 elements each
  int lanes = 1;
  while (lanes * 8 < dim) lanes *= 2;
  return lanes;
}

/// scores[h][key] = scale q_h . k_key for keys first <= key < last of the chunk.
template <class T, int G>
__device__ void score(const AttentionOp& op, const float* q, const T* k, int first, int last, float* scores) {
  const int lanes = group_lanes(op.dim), sub = int(threadIdx.x) % lanes, per_block = kWarps * 32 / lanes;
  const bool mine = sub * 8 < op.dim;
  for (int base = first; base < last; base += per_block) {
    const int key = base + int(threadIdx.x) / lanes;
    float kv[8] = {}, dot[G] = {};
    if (mine && key < last) load8(k + int64_t(key) * op.kv_heads * op.dim + sub * 8, kv);
#pragma unroll
    for (int h = 0; h < G; ++h) {
      if (!mine) continue;
#pragma unroll
      for (int i = 0; i < 8; ++i) dot[h] = fmaf(q[h * op.dim + sub * 8 + i], kv[i], dot[h]);
    }
#pragma unroll
    for (int h = 0; h < G; ++h) {
      for (int o = 1; o < lanes; o <<= 1) dot[h] += __shfl_xor_sync(~0u, dot[h], o);
      if (sub == 0 && key < last) scores[h * kChunk + key] = dot[h] * op.scale;
    }
  }
}

/// o[h] = sum of e v over the chunk's keys, reduced over the block in a fixed order; warps [kWarps][G][dim].
template <class T, int G>
__device__ void weigh(const AttentionOp& op, const T* v, int first, int last, const float* scores, float* warps) {
  const int lanes = group_lanes(op.dim), sub = int(threadIdx.x) % lanes, per_block = kWarps * 32 / lanes;
  float o[G][8] = {};
  for (int key = int(threadIdx.x) / lanes; key < last; key += per_block) {
    if (key < first || sub * 8 >= op.dim) continue;
    float kv[8];
    load8(v + int64_t(key) * op.kv_heads * op.dim + sub * 8, kv);
#pragma unroll
    for (int h = 0; h < G; ++h) {
      const float e = scores[h * kChunk + key];
#pragma unroll
      for (int i = 0; i < 8; ++i) o[h][i] = fmaf(e, kv[i], o[h][i]);
    }
  }
#pragma unroll
  for (int h = 0; h < G; ++h) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      for (int s = lanes; s < 32; s <<= 1) o[h][i] += __shfl_xor_sync(~0u, o[h][i], s);
      if (threadIdx.x % 32 < unsigned(lanes) && sub * 8 < op.dim) {
        warps[(int(threadIdx.x) / 32 * G + h) * op.dim + sub * 8 + i] = o[h][i];
      }
    }
  }
}

__device__ void merge(const AttentionOp& op, int t, int head, int group, int first_chunk, int last_chunk) {
  for (int i = int(threadIdx.x); i < group * op.dim; i += kWarps * 32) {
    const int h = head + i / op.dim, d = i % op.dim;
    const float* part = op.partial + (int64_t(t) * op.heads + h) * op.chunks * (op.dim + 2);
    float largest = 0, sum = 0, o = 0;
    for (int c = first_chunk; c <= last_chunk; ++c) {
      const float* p = part + int64_t(c) * (op.dim + 2);
      const float m = __ldcg(p + op.dim), s = __ldcg(p + op.dim + 1), x = __ldcg(p + d);
      if (c == first_chunk) {
        largest = m, sum = s, o = x;
        continue;
      }
      const float top = fmaxf(largest, m), old = expf(largest - top), now = expf(m - top);
      largest = top, sum = fmaf(s, now, sum * old), o = fmaf(x, now, o * old);
    }
    op.out[t * op.out_stride + h * op.dim + d] = o / sum;
  }
}

template <class T, int G>
__global__ __launch_bounds__(kWarps * 32) void attention_kernel(const __grid_constant__ AttentionOp op, int group) {
  PLUMB_SHARED(float, shared);  // q [G][dim], scores [G][256], warps [8][G][dim]
  __shared__ float largest[G], sum[G];
  __shared__ bool is_last;
  float *q = shared, *scores = q + G * op.dim, *warps = scores + G * kChunk;
  const int per = group / G, kv_head = int(blockIdx.x) / per, head = kv_head * group + int(blockIdx.x) % per * G;
  const int t = int(blockIdx.z), chunk = int(blockIdx.y);
  let_successor_start();
  wait_for_predecessor();
  const int pos = op.positions[t], from = op.window > 0 && pos >= op.window ? pos - op.window + 1 : 0;
  const int first_chunk = from / kChunk, last_chunk = pos / kChunk;
  if (chunk < first_chunk || chunk > last_chunk) return;
  const int start = chunk * kChunk, first = max(from - start, 0), last = min(pos + 1 - start, kChunk);
  for (int i = int(threadIdx.x); i < G * op.dim; i += kWarps * 32) q[i] = __ldcg(op.q + t * op.q_stride + head * op.dim + i);
  __syncthreads();
  const int64_t offset = (int64_t(start) * op.kv_heads + kv_head) * op.dim;
  score<T, G>(op, q, static_cast<const T*>(op.k) + offset, first, last, scores);
  __syncthreads();
  const int lane = int(threadIdx.x) % 32;
  for (int h = int(threadIdx.x) / 32; h < G; h += kWarps) {
    float m = -INFINITY, s = 0;
    for (int i = first + lane; i < last; i += 32) m = fmaxf(m, scores[h * kChunk + i]);
    m = warp_max(m);
    for (int i = first + lane; i < last; i += 32) s += scores[h * kChunk + i] = expf(scores[h * kChunk + i] - m);
    s = warp_sum(s);
    if (lane == 0) largest[h] = m, sum[h] = s;
  }
  __syncthreads();
  weigh<T, G>(op, static_cast<const T*>(op.v) + offset, first, last, scores, warps);
  __syncthreads();
  for (int i = int(threadIdx.x); i < G * op.dim; i += kWarps * 32) {
    float o = 0;
    for (int w = 0; w < kWarps; ++w) o += warps[w * G * op.dim + i];
    const int h = i / op.dim;
    if (first_chunk == last_chunk) {
      op.out[t * op.out_stride + head * op.dim + i] = o / sum[h];
      continue;
    }
    float* part = op.partial + ((int64_t(t) * op.heads + head + h) * op.chunks + chunk) * (op.dim + 2);
    part[i % op.dim] = o;
    if (i % op.dim == 0) part[op.dim] = largest[h], part[op.dim + 1] = sum[h];
  }
  if (first_chunk == last_chunk) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {  // counts blocks, never values; wraps to zero for the next call
    is_last = atomicInc(op.counter + int64_t(t) * gridDim.x + blockIdx.x, unsigned(last_chunk - first_chunk)) ==
              unsigned(last_chunk - first_chunk);
  }
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  merge(op, t, head, G, first_chunk, last_chunk);
}

template <class T, int G>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned(op.heads / G), unsigned(op.chunks), unsigned(op.n));
  const int shared = (G * op.dim + G * kChunk + kWarps * G * op.dim) * 4;
  return launch(c, attention_kernel<T, G>, grid, kWarps * 32, shared, op, group);
}

template <class T>
const char* by_group(Context* c, const AttentionOp& op) {
  // Query heads at a time: the largest divisor up to 8 that leaves blocks enough; no sum depends on it.
  const int group = op.heads / op.kv_heads;
  for (int g = 8; g > 1; --g) {
    if (group % g != 0 || int64_t(op.heads / g) * op.chunks * op.n < c->processors / 2) continue;
    switch (g) {
      case 8: return run<T, 8>(c, op);
      case 7: return run<T, 7>(c, op);
      case 6: return run<T, 6>(c, op);
      case 5: return run<T, 5>(c, op);
      case 4: return run<T, 4>(c, op);
      case 3: return run<T, 3>(c, op);
      default: return run<T, 2>(c, op);
    }
  }
  return run<T, 1>(c, op);
}

}  // namespace

const char* attention(Context* c, const AttentionOp& op) {
  if (op.n > 1 && on_tensor_cores(op.dim, op.cache_f32)) return prompt_attention(c, op);
  return op.cache_f32 ? by_group<float>(c, op) : by_group<__half>(c, op);
}

}  // namespace plumb::cuda
