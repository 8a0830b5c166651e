// Attention of the query heads of one kv head over one chunk of keys, a block each; the last block of a token to finish
// merges the chunks in ascending order. Masked keys are skipped by position. Chunks lie at absolute positions, so the sums do
// not depend on how a prompt was split.
#include <cuda_fp16.h>

#include "cuda/device.cuh"
#include "cuda/heads.cuh"

namespace plumb::cuda {
namespace {

constexpr int kChunk = kAttentionChunk, kWarps = 8, kBatch = 4;

/// Eight elements of a key or a value.
template <class T>
struct Piece {
  uint4 raw[sizeof(T) / 2];
  __device__ void load(const T* p) {
#pragma unroll
    for (int i = 0; i < int(sizeof(T) / 2); ++i) raw[i] = __ldcg(reinterpret_cast<const uint4*>(p) + i);
  }
  __device__ void copy(const T* p) {
#pragma unroll
    for (int i = 0; i < int(sizeof(T) / 2); ++i) raw[i] = reinterpret_cast<const uint4*>(p)[i];
  }
  __device__ float value(int i) const {
    const uint32_t* words = &raw[0].x;
    if constexpr (sizeof(T) == 4) return __uint_as_float(words[i]);
    return __half2float(__ushort_as_half(static_cast<unsigned short>(words[i / 2] >> 16 * (i % 2))));
  }
};

__device__ int group_lanes(int dim) {  // lanes that share a key: a power of two, 8 elements each
  int lanes = 1;
  while (lanes * 8 < dim) lanes *= 2;
  return lanes;
}

/// What a block sees: keys first <= key < last of its chunk; `self` is the token's own where it stands in shared memory.
struct Keys {
  int first, last, self, lanes, sub, slot, stride;
  bool mine;
};

/// kBatch keys of this thread from `base` on.
template <class T>
__device__ void load(const Keys& at, const T* from, int64_t pitch, int base, Piece<T>* piece) {
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    const int key = base + b * at.stride + at.slot;
    if (at.mine && key >= at.first && key < at.last && key != at.self) piece[b].load(from + key * pitch + at.sub * 8);
  }
}

template <class T>
__device__ void load_self(const Keys& at, const T* self, int base, Piece<T>* piece) {
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    if (at.mine && base + b * at.stride + at.slot == at.self) piece[b].copy(self + at.sub * 8);
  }
}

/// scores[h][key] = scale q_h . k_key. Queries are read once for all keys of the batch.
template <class T, int G>
__device__ void score(const AttentionOp& op, const Keys& at, const float* q, const Piece<T>* piece, int base, float* scores) {
#pragma unroll
  for (int h = 0; h < G; ++h) {
    float x[8] = {};
    if (at.mine) {
      const float4* from = reinterpret_cast<const float4*>(q + h * op.dim + at.sub * 8);
      const float4 a = from[0], b = from[1];
      x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int key = base + b * at.stride + at.slot;
      if (base + b * at.stride >= at.last) continue;  // the same for the whole block
      const bool seen = at.mine && key >= at.first && key < at.last;
      float dot = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) dot = seen ? fmaf(x[i], piece[b].value(i), dot) : 0.0f;
      for (int o = 1; o < at.lanes; o <<= 1) dot += __shfl_xor_sync(~0u, dot, o);
      if (at.sub == 0 && seen) scores[h * kChunk + key] = dot * op.scale;
    }
  }
}

/// o[h] += e v over the thread's keys.
template <class T, int G>
__device__ void weigh(const Keys& at, const Piece<T>* piece, int base, const float* scores, float o[G][8]) {
#pragma unroll
  for (int b = 0; b < kBatch; ++b) {
    const int key = base + b * at.stride + at.slot;
    if (!at.mine || key < at.first || key >= at.last) continue;
#pragma unroll
    for (int h = 0; h < G; ++h) {
      const float e = scores[h * kChunk + key];
#pragma unroll
      for (int i = 0; i < 8; ++i) o[h][i] = fmaf(e, piece[b].value(i), o[h][i]);
    }
  }
}

/// Sums over the keys of a warp in a fixed tree; warps [kWarps][G][dim].
template <int G>
__device__ void gather(const AttentionOp& op, const Keys& at, float o[G][8], float* warps) {
#pragma unroll
  for (int h = 0; h < G; ++h) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      for (int s = at.lanes; s < 32; s <<= 1) o[h][i] += __shfl_xor_sync(~0u, o[h][i], s);
      if (threadIdx.x % 32 < unsigned(at.lanes) && at.mine) {
        warps[(int(threadIdx.x) / 32 * G + h) * op.dim + at.sub * 8 + i] = o[h][i];
      }
    }
  }
}

/// The query heads from `head` on, and in the block of the token's own key that key and value, into shared memory.
template <class T, int G>
__device__ void make_heads(const AttentionOp& op, const Keys& at, int head, int kv_head, bool store, int pos, float* q, T* self) {
  const int warp = int(threadIdx.x) / 32;
  for (int job = warp; job < (at.self >= 0 ? G + 2 : G); job += kWarps) {
    if (job < G) {
      turn_head(op.part[0], op.part[0].x + (head + job) * op.dim, pos, [&](int i, float v) { q[job * op.dim + i] = v; });
      continue;
    }
    const HeadsOp::Part& part = op.part[1 + job - G];
    T* cache = static_cast<T*>(part.cache) + (int64_t(pos) * op.kv_heads + kv_head) * op.dim;
    turn_head(part, part.x + kv_head * op.dim, pos, [&](int i, float v) {
      self[(job - G) * op.dim + i] = T(v);
      if (store) cache[i] = T(v);
    });
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

/// Scores to weights, with the largest score and the sum of the weights of each head; a warp takes a head.
template <int G>
__device__ void soften(const Keys& at, float* scores, float* largest, float* sum) {
  const int lane = int(threadIdx.x) % 32;
  for (int h = int(threadIdx.x) / 32; h < G; h += kWarps) {
    float m = -INFINITY, s = 0;
    for (int i = at.first + lane; i < at.last; i += 32) m = fmaxf(m, scores[h * kChunk + i]);
    m = warp_max(m);
    for (int i = at.first + lane; i < at.last; i += 32) s += scores[h * kChunk + i] = expf(scores[h * kChunk + i] - m);
    s = warp_sum(s);
    if (lane == 0) largest[h] = m, sum[h] = s;
  }
}

/// Whether this block is the last of its token and heads; then all others' chunks can be read.
__device__ bool arrived_last(const AttentionOp& op, int t, int others) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {  // counts blocks, never values; wraps to zero for the next call
    is_last = atomicInc(op.counter + int64_t(t) * gridDim.x + blockIdx.x, unsigned(others)) == unsigned(others);
  }
  __syncthreads();
  __threadfence();
  return is_last;
}

template <class T, int G>
__global__ __launch_bounds__(kWarps * 32) void attention_kernel(const __grid_constant__ AttentionOp op, int group) {
  PLUMB_SHARED(float, shared);  // own key and value [2][dim], q [G][dim], scores [G][kChunk], warps [8][G][dim]
  __shared__ float largest[G], sum[G];
  T* self = reinterpret_cast<T*>(shared);
  float *q = shared + 2 * op.dim, *scores = q + G * op.dim, *warps = scores + G * kChunk;
  const int per = group / G, kv_head = int(blockIdx.x) / per, head = kv_head * group + int(blockIdx.x) % per * G;
  const int t = int(blockIdx.z), chunk = int(blockIdx.y);
  let_successor_start();
  if (!op.fused) wait_for_predecessor();  // else everything up to the next wait is older than the token
  const int pos = op.positions[t], from = op.window > 0 && pos >= op.window ? pos - op.window + 1 : 0;
  const int first_chunk = from / kChunk, last_chunk = pos / kChunk;
  if (chunk < first_chunk || chunk > last_chunk) return;
  const int start = chunk * kChunk, lanes = group_lanes(op.dim), sub = int(threadIdx.x) % lanes;
  const Keys at{max(from - start, 0), min(pos + 1 - start, kChunk), op.fused && chunk == last_chunk ? pos - start : -1,
                lanes, sub, int(threadIdx.x) / lanes, kWarps * 32 / lanes, sub * 8 < op.dim};
  const int64_t pitch = int64_t(op.kv_heads) * op.dim, offset = (int64_t(start) * op.kv_heads + kv_head) * op.dim;
  const T *k = static_cast<const T*>(op.k) + offset, *v = static_cast<const T*>(op.v) + offset;
  const int batch = kBatch * at.stride;
  Piece<T> keys[kBatch], values[kBatch];
  load(at, k, pitch, 0, keys);
  load(at, v, pitch, 0, values);
  if (op.fused) {
    wait_for_predecessor();
    make_heads<T, G>(op, at, head, kv_head, int(blockIdx.x) % per == 0, pos, q, self);
  } else {
    for (int i = int(threadIdx.x); i < G * op.dim; i += kWarps * 32) q[i] = __ldcg(op.q + t * op.q_stride + head * op.dim + i);
  }
  __syncthreads();
  for (int base = 0; base < at.last; base += batch) {
    if (base > 0) load(at, k, pitch, base, keys);
    load_self(at, self, base, keys);
    score<T, G>(op, at, q, keys, base, scores);
  }
  __syncthreads();
  soften<G>(at, scores, largest, sum);
  __syncthreads();
  float o[G][8] = {};
  for (int base = 0; base < at.last; base += batch) {
    if (base > 0) load(at, v, pitch, base, values);
    load_self(at, self + op.dim, base, values);
    weigh<T, G>(at, values, base, scores, o);
  }
  gather<G>(op, at, o, warps);
  __syncthreads();
  for (int i = int(threadIdx.x); i < G * op.dim; i += kWarps * 32) {
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += warps[w * G * op.dim + i];
    const int h = i / op.dim;
    if (first_chunk == last_chunk) {
      op.out[t * op.out_stride + head * op.dim + i] = total / sum[h];
      continue;
    }
    float* part = op.partial + ((int64_t(t) * op.heads + head + h) * op.chunks + chunk) * (op.dim + 2);
    part[i % op.dim] = total;
    if (i % op.dim == 0) part[op.dim] = largest[h], part[op.dim + 1] = sum[h];
  }
  if (first_chunk == last_chunk || !arrived_last(op, t, last_chunk - first_chunk)) return;
  merge(op, t, head, G, first_chunk, last_chunk);
}

template <class T, int G>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned(op.heads / G), unsigned(op.chunks), unsigned(op.n));
  const int shared = (2 * op.dim + G * op.dim + G * kChunk + kWarps * G * op.dim) * 4;
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
