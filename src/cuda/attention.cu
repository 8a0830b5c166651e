// Attention of tokens that each have a sequence of their own: the query heads of one kv head over one chunk of keys, a block each;
// the last block of a token to finish merges the chunks in ascending order. Chunks, chains and trees are the CPU's
// (docs/numerics.md), and so are the bits. Masked keys are skipped by position.
#include <cuda_fp16.h>

#include "cuda/heads.cuh"
#include "cuda/tensor.cuh"

namespace plumb::cuda {
namespace {

constexpr int kChunk = kAttentionChunk, kWarps = kChunk / 32;  // a thread takes a key
constexpr int kTileBytes = 64 << 10;                           // of values in shared memory

/// Eight elements of a key.
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

__device__ inline float2 two(const float* p) { return *reinterpret_cast<const float2*>(p); }
__device__ inline float2 two(const __half* p) { return __half22float2(*reinterpret_cast<const __half2*>(p)); }

/// What a block sees: keys first <= key < last of its chunk; `self` is the token's own where it stands in shared memory.
struct Keys {
  int first, last, self;
  int64_t pitch;
};

// Keys of a thread that are read at once.
template <class T>
constexpr int kPieces = 16 / sizeof(T);

template <class T>
__device__ void load_key(const Keys& at, const T* k, int dim, int base, Piece<T>* piece) {
  const int key = int(threadIdx.x);
  if (key < at.first || key >= at.last || key == at.self) return;
#pragma unroll
  for (int i = 0; i < kPieces<T>; ++i) {
    if (base + 8 * i < dim) piece[i].load(k + key * at.pitch + base + 8 * i);
  }
}

/// scores[h][key] = scale times the chain of fma over the head.
template <class T, int G>
__device__ void score(const AttentionOp& op, const Keys& at, const T* k, const T* self, const float* q, Piece<T>* piece, float* scores) {
  const int key = int(threadIdx.x);
  if (key < at.first || key >= at.last) return;
  float acc[G] = {};
  for (int base = 0; base < op.dim; base += 8 * kPieces<T>) {
    if (base > 0) load_key(at, k, op.dim, base, piece);
#pragma unroll
    for (int i = 0; i < kPieces<T>; ++i) {
      if (base + 8 * i >= op.dim) continue;
      if (key == at.self) piece[i].copy(self + base + 8 * i);
#pragma unroll
      for (int h = 0; h < G; ++h) {
        const float4* from = reinterpret_cast<const float4*>(q + h * op.dim + base + 8 * i);
        const float4 a = from[0], b = from[1];
        float s = acc[h];
        s = fmaf(piece[i].value(0), a.x, s), s = fmaf(piece[i].value(1), a.y, s), s = fmaf(piece[i].value(2), a.z, s);
        s = fmaf(piece[i].value(3), a.w, s), s = fmaf(piece[i].value(4), b.x, s), s = fmaf(piece[i].value(5), b.y, s);
        s = fmaf(piece[i].value(6), b.z, s), acc[h] = fmaf(piece[i].value(7), b.w, s);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < G; ++h) scores[h * kChunk + key] = acc[h] * op.scale;
}

/// Scores to weights, 0 where not seen, with the largest score and the sum of the weights of each head; a warp takes a head.
template <int G>
__device__ void soften(const Keys& at, float* scores, float* largest, float* sum) {
  const int lane = int(threadIdx.x) % 32;
  for (int h = int(threadIdx.x) / 32; h < G; h += kWarps) {
    float* e = scores + h * kChunk;
    float m = -INFINITY, s = 0;
    for (int i = at.first + lane; i < at.last; i += 32) m = fmaxf(m, e[i]);
    m = warp_max(m);
    for (int i = lane; i < kChunk; i += 32) {
      e[i] = i >= at.first && i < at.last ? exp_negative(e[i] - m) : 0.0f;
    }
    __syncwarp();
    for (int i = lane % 16; i < kChunk; i += 16) s += e[i];  // 16 sums, twice
    for (int o = 8; o; o >>= 1) s += __shfl_xor_sync(~0u, s, o);
    if (lane == 0) largest[h] = m, sum[h] = s;
  }
}

/// Values of the keys [from, from + count) into shared memory, zeros where not seen.
template <class T>
__device__ void load_values(const Keys& at, const T* v, int dim, int from, int count, T* tile) {
  const int pieces = dim * int(sizeof(T)) / 16;
  for (int i = int(threadIdx.x); i < count * pieces; i += kChunk) {
    const int key = from + i / pieces, e = i % pieces * (16 / int(sizeof(T)));
    if (key == at.self) continue;
    const bool seen = key >= at.first && key < at.last;
    copy16(tile + (key - from) * dim + e, seen ? v + key * at.pitch + e : v, seen);
  }
  commit_copies();
}

// A thread takes two dims of every so manieth head.
template <int G>
struct Outputs {
  static constexpr int kHeads = (G + 1) / 2;
  int pair, slot, slots;
  float2 o[kHeads];
  __device__ explicit Outputs(int dim) : pair(int(threadIdx.x) % (dim / 2)), slot(int(threadIdx.x) / (dim / 2)), slots(kChunk / (dim / 2)), o{} {}

  /// o += e v over ascending keys [from, to), multiples of four.
  template <class T>
  __device__ void weigh(const T* tile, const float* scores, int dim, int base, int from, int to) {
    if (slot >= slots) return;
    for (int key = from; key < to; key += 4) {
      const T* v = tile + (key - base) * dim + 2 * pair;
      const float2 v0 = two(v), v1 = two(v + dim), v2 = two(v + 2 * dim), v3 = two(v + 3 * dim);
#pragma unroll
      for (int i = 0; i < kHeads; ++i) {
        const int h = slot + i * slots;
        if (h >= G) continue;
        const float4 e = *reinterpret_cast<const float4*>(scores + h * kChunk + key);
        o[i].x = fmaf(e.w, v3.x, fmaf(e.z, v2.x, fmaf(e.y, v1.x, fmaf(e.x, v0.x, o[i].x))));
        o[i].y = fmaf(e.w, v3.y, fmaf(e.z, v2.y, fmaf(e.y, v1.y, fmaf(e.x, v0.y, o[i].y))));
      }
    }
  }

  /// To the output, or, if there are more, to the partial results of `chunk`.
  __device__ void write(const AttentionOp& op, int t, int head, int chunk, const float* largest, const float* sum) const {
    if (slot >= slots) return;
#pragma unroll
    for (int i = 0; i < kHeads; ++i) {
      const int h = slot + i * slots, d = 2 * pair;
      if (h >= G) continue;
      if (chunk < 0) {
        const float inverse = 1.0f / sum[h];
        float* to = op.out + t * op.out_stride + (head + h) * op.dim + d;
        to[0] = o[i].x * inverse, to[1] = o[i].y * inverse;
        continue;
      }
      float* part = op.partial + ((int64_t(t) * op.heads + head + h) * op.chunks + chunk) * (op.dim + 2);
      part[d] = o[i].x, part[d + 1] = o[i].y;
      if (d == 0) part[op.dim] = largest[h], part[op.dim + 1] = sum[h];
    }
  }
};

/// The query heads from `head` on, and in the block of the token's own key that key and value, into shared memory.
template <class T, int G>
__device__ void make_heads(const AttentionOp& op, const Keys& at, int t, int head, int kv_head, bool store, int pos, uint8_t* page, float* q,
                           T* self) {
  const int warp = int(threadIdx.x) / 32;
  for (int job = warp; job < (at.self >= 0 ? G + 2 : G); job += kWarps) {
    if (job < G) {
      turn_head(op.part[0], op.part[0].x + t * op.part[0].x_stride + (head + job) * op.dim, pos, [&](int i, float v) { q[job * op.dim + i] = v; });
      continue;
    }
    const HeadsOp::Part& part = op.part[1 + job - G];
    T* cache = reinterpret_cast<T*>(page + part.cache) + (int64_t(pos % kChunk) * op.kv_heads + kv_head) * op.dim;
    turn_head(part, part.x + t * part.x_stride + kv_head * op.dim, pos, [&](int i, float v) {
      self[(job - G) * op.dim + i] = T(v);
      if (store) cache[i] = T(v);
    });
  }
}

__device__ void merge(const AttentionOp& op, int t, int head, int group, int first_chunk, int last_chunk) {
  for (int i = int(threadIdx.x); i < group * op.dim; i += kChunk) {
    const int h = head + i / op.dim, d = i % op.dim;
    const float* part = op.partial + (int64_t(t) * op.heads + h) * op.chunks * (op.dim + 2);
    float largest = 0, sum = 0, o = 0;
#pragma unroll 4
    for (int c = first_chunk; c <= last_chunk; ++c) {
      const float* p = part + int64_t(c) * (op.dim + 2);
      const float m = __ldcg(p + op.dim), s = __ldcg(p + op.dim + 1), x = __ldcg(p + d);
      if (c == first_chunk) {
        largest = m, sum = s, o = x;
        continue;
      }
      const float top = largest > m ? largest : m, old = exp_negative(largest - top), now = exp_negative(m - top);
      largest = top, sum = fmaf(s, now, sum * old), o = fmaf(x, now, o * old);
    }
    op.out[t * op.out_stride + h * op.dim + d] = o * (1.0f / sum);
  }
}

/// Keys of a tile of values: a multiple of four.
template <class T>
__host__ __device__ int tile_keys(int dim) {
  const int most = kTileBytes / (dim * int(sizeof(T))) / 4 * 4;
  return most < kChunk ? most : kChunk;
}

template <class T, int G>
__global__ __launch_bounds__(kChunk) void attention_kernel(const __grid_constant__ AttentionOp op, int group) {
  PLUMB_SHARED(float, shared);  // own key and value [2][dim], q [G][dim], scores [G][kChunk], a tile of values
  __shared__ float largest[G], sum[G];
  T* self = reinterpret_cast<T*>(shared);
  float *q = shared + 2 * op.dim, *scores = q + G * op.dim;
  T* tile = reinterpret_cast<T*>(scores + G * kChunk);
  const int per = group / G, kv_head = int(blockIdx.x) / per, head = kv_head * group + int(blockIdx.x) % per * G;
  const int t = int(blockIdx.z), chunk = int(blockIdx.y), keys = tile_keys<T>(op.dim);
  let_successor_start();
  if (!op.fused) wait_for_predecessor();  // else everything up to the next wait is older than the token
  uint8_t* page = table_of(op.pages, t)[chunk];
  const int pos = op.positions[t], from = op.window > 0 && pos >= op.window ? pos - op.window + 1 : 0;
  const int first_chunk = from / kChunk, last_chunk = pos / kChunk;
  if (chunk < first_chunk || chunk > last_chunk) return;
  const int start = chunk * kChunk;
  const Keys at{max(from - start, 0), min(pos + 1 - start, kChunk), op.fused && chunk == last_chunk ? pos - start : -1,
                int64_t(op.kv_heads) * op.dim};
  const T* k = reinterpret_cast<const T*>(page + op.k) + kv_head * op.dim;
  const T* v = reinterpret_cast<const T*>(page + op.v) + kv_head * op.dim;
  const int first = at.first / 4 * 4, last = (at.last + 3) / 4 * 4;
  Piece<T> piece[kPieces<T>];
  load_key(at, k, op.dim, 0, piece);
  load_values(at, v, op.dim, first, min(keys, last - first), tile);
  if (op.fused) {
    wait_for_predecessor();
    make_heads<T, G>(op, at, t, head, kv_head, int(blockIdx.x) % per == 0, pos, page, q, self);
  } else {
    for (int i = int(threadIdx.x); i < G * op.dim; i += kChunk) q[i] = __ldcg(op.q + t * op.q_stride + head * op.dim + i);
  }
  __syncthreads();
  score<T, G>(op, at, k, self, q, piece, scores);
  __syncthreads();
  soften<G>(at, scores, largest, sum);
  Outputs<G> out(op.dim);
  for (int base = first; base < last; base += keys) {
    if (base > first) {
      __syncthreads();
      load_values(at, v, op.dim, base, min(keys, last - base), tile);
    }
    for (int i = int(threadIdx.x); i < op.dim && at.self >= base && at.self < base + keys; i += kChunk) {
      tile[(at.self - base) * op.dim + i] = self[op.dim + i];
    }
    wait_for_copies();
    __syncthreads();
    out.weigh(tile, scores, op.dim, base, base, min(base + keys, last));
  }
  out.write(op, t, head, first_chunk == last_chunk ? -1 : chunk, largest, sum);
  if (first_chunk == last_chunk || !arrived_last(op, t, last_chunk - first_chunk)) return;
  merge(op, t, head, G, first_chunk, last_chunk);
}

template <class T, int G>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned(op.heads / G), unsigned(op.chunks), unsigned(op.n));
  const int shared = (2 * op.dim + G * op.dim + G * kChunk) * 4 + tile_keys<T>(op.dim) * op.dim * int(sizeof(T));
  return launch(c, attention_kernel<T, G>, grid, kChunk, shared, op, group);
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
  const bool halves = op.halves && !op.cache_f32 && op.dim <= 256;
  if (op.runs) return halves ? half_attention(c, op) : prompt_attention(c, op);
  if (halves) return half_decode(c, op);
  return op.cache_f32 ? by_group<float>(c, op) : by_group<__half>(c, op);
}

}  // namespace plumb::cuda
