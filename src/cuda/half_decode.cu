// Attention of tokens that each have a sequence of their own, in halves on tensor cores with f32 sums (docs/numerics.md, `--act
// f16`). A block takes up to eight query heads of one kv head over half a page of keys; the last block of a token and its heads
// joins the parts. Keys and values are on their way before the kernel before this one has ended, as only the token's own are new.
#include "cuda/half.cuh"
#include "cuda/heads.cuh"

namespace plumb::cuda {
namespace {

constexpr int kKeys = kAttentionChunk / 2, kBlock = 256, kWarps = kBlock / 32, kHeads = 8;
constexpr int kMoreWarps = 2;  // that only make heads, where the others would take turns at them
constexpr int kScores = kKeys + 8;  // from one head to the next
constexpr float kLog2e = 0x1.715476p0f;

template <int D>
constexpr int kPitch = D + 8;  // halves: rows of a tile fall into different banks

// Shared memory. Between the tiles' last use and the end of the block, `weights` are those of the parts.
template <int D>
struct Tiles {
  __half k[kKeys * kPitch<D>], v[kKeys * kPitch<D>], q[kHeads * kPitch<D>], e[kHeads * kScores];
  float scores[kHeads][kScores], largest[kHeads], sum[kHeads], weights[kHeads][kKeys];
};

// What a block works at: heads `head` to `head` + `heads`, keys first <= key < last of the part; `self` is the token's own there.
struct Work {
  int t, pos, kv_head, head, heads, first, last, self;
};

/// Starts copies of the keys or values that are seen and not the token's own; zeros elsewhere.
template <int D>
__device__ void load_tile(const Work& w, const __half* from, int64_t pitch, int dim, __half* to) {
  for (int i = int(threadIdx.x); i < kKeys * D / 8; i += kBlock) {
    const int key = i / (D / 8), d = i % (D / 8) * 8;
    const bool valid = key >= w.first && key < w.last && key != w.self && d < dim;
    if (key != w.self) copy16(to + key * kPitch<D> + d, from + (valid ? key * pitch + d : 0), valid);
  }
  commit_copies();
}

/// Zeros in rows of queries that are no head's, and behind the last dim of all others.
template <int D>
__device__ void clear_rest(const AttentionOp& op, const Work& w, Tiles<D>& tiles) {
  for (int i = int(threadIdx.x); i < (kHeads + 2) * D; i += int(blockDim.x)) {
    const int row = i / D, d = i % D;
    if (row < kHeads) {
      if (row >= w.heads || d >= op.dim) tiles.q[row * kPitch<D> + d] = __float2half_rn(0);
    } else if (w.self >= 0 && d >= op.dim) {
      (row == kHeads ? tiles.k : tiles.v)[w.self * kPitch<D> + d] = __float2half_rn(0);
    }
  }
}

// A head that a warp makes: a query, or behind the block's queries the token's own key or value. All of this is known before the
// kernel before has ended.
template <int D>
struct Head {
  int part;
  const float* x;
  __half *to, *cache;  // cache: null for queries and but in one block of a group

  __device__ Head(const AttentionOp& op, const Work& w, uint8_t* page, Tiles<D>& tiles, int job) : part(0), x(nullptr), cache(nullptr) {
    if (job < w.heads) {
      to = tiles.q + job * kPitch<D>;
      x = op.fused ? op.part[0].x + w.t * op.part[0].x_stride : op.q + w.t * op.q_stride;
      x += (w.head + job) * op.dim;
      return;
    }
    part = 1 + job - w.heads;
    if (w.self < 0 || part > 2) return;
    to = (part == 1 ? tiles.k : tiles.v) + w.self * kPitch<D>;
    x = op.part[part].x + w.t * op.part[part].x_stride + w.kv_head * op.dim;
    if (w.head % (op.heads / op.kv_heads) != 0) return;
    cache = reinterpret_cast<__half*>(page + op.part[part].cache) + (int64_t(w.pos % kAttentionChunk) * op.kv_heads + w.kv_head) * op.dim;
  }
  __device__ void make(const AttentionOp& op, const Work& w) const {
    if (!x) return;
    if (!op.fused) {
      for (int d = int(threadIdx.x % 32); d < op.dim; d += 32) to[d] = __float2half_rn(x[d]);
      return;
    }
    turn_head(op.part[part], x, w.pos, [&](int i, float v) {
      to[i] = __float2half_rn(v);
      if (cache) cache[i] = to[i];
    });
  }
};

/// Scores of the warp's 16 keys.
template <int D>
__device__ void score(Tiles<D>& tiles, float scale) {
  const int lane = int(threadIdx.x) % 32, key = int(threadIdx.x) / 32 * 16;
  float c[4] = {};
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    uint32_t a[4];
    load_matrices(a, tiles.k + (key + lane % 16) * kPitch<D> + d + lane / 16 * 8);
    const uint32_t* q = reinterpret_cast<const uint32_t*>(tiles.q + lane / 4 * kPitch<D> + d) + lane % 4;
    multiply(c, a, q[0], q[4]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) tiles.scores[lane % 4 * 2 + i % 2][key + lane / 4 + i / 2 * 8] = c[i] * scale;
}

/// Scores, in units of ln 2, to weights, 0 where not seen; a warp takes a head.
template <int D>
__device__ void soften(const Work& w, Tiles<D>& tiles) {
  const int lane = int(threadIdx.x) % 32, head = int(threadIdx.x) / 32;
  float x[kKeys / 32], m = -INFINITY, s = 0;
#pragma unroll
  for (int i = 0; i < kKeys / 32; ++i) {
    const int key = lane + 32 * i;
    x[i] = key >= w.first && key < w.last ? tiles.scores[head][key] : -INFINITY;
    m = fmaxf(m, x[i]);
  }
  m = warp_max(m);
#pragma unroll
  for (int i = 0; i < kKeys / 32; ++i) {
    const float e = exp2_fast(x[i] - m);
    tiles.e[head * kScores + lane + 32 * i] = __float2half_rn(e), s += e;
  }
  s = warp_sum(s);
  if (lane == 0) tiles.largest[head] = m, tiles.sum[head] = s;
}

/// Sixteen dims of all heads: sums over the part's keys.
template <int D>
__device__ void weigh(const Tiles<D>& tiles, int d, float (&o)[4]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int key = 0; key < kKeys; key += 16) {
    uint32_t a[4];  // rows are dims: matrices of keys 0..7 and 8..15 by dims 0..7 and 8..15, each transposed
    load_matrices_transposed(a, tiles.v + (key + lane % 8 + lane / 16 * 8) * kPitch<D> + d + lane / 8 % 2 * 8);
    const uint32_t* e = reinterpret_cast<const uint32_t*>(tiles.e + lane / 4 * kScores + key) + lane % 4;
    multiply(o, a, e[0], e[4]);
  }
}

// Where parts of one token and head lie: sums [parts][dim], then of each part the largest score and the sum of weights.
struct Parts {
  float *sums, *scores;
  __device__ Parts(const AttentionOp& op, const Work& w, int head) {
    sums = op.partial + (int64_t(w.t) * op.heads + w.head + head) * 2 * op.chunks * (op.dim + 2);
    scores = sums + int64_t(2) * op.chunks * op.dim;
  }
};

/// Starts copies of n parts of all heads to where keys and values were, [heads][n][D].
template <int D>
__device__ void load_parts(const AttentionOp& op, const Work& w, int first, int n, float* to) {
  constexpr int kLanes = D / 4;
  const int d = int(threadIdx.x % kLanes) * 4;
  for (int head = 0; head < w.heads && d < op.dim; ++head) {
    const float* from = Parts(op, w, head).sums + first * op.dim + d;
#pragma unroll 4
    for (int c = int(threadIdx.x / kLanes); c < n; c += kBlock / kLanes) copy16(to + (head * n + c) * D + d, from + c * op.dim, true);
  }
  commit_copies();
}

/// Parts of all blocks to outputs, as many at a time as there is room for; a thread takes two dims of every kPass-th head. The
/// first are on their way before their weights are known.
template <int D>
__device__ void join(const AttentionOp& op, const Work& w, int parts, Tiles<D>& tiles) {
  constexpr int kPairs = D / 2, kPass = kBlock / kPairs, kRoom = int(sizeof(tiles.k) + sizeof(tiles.v)) / 4;
  const int lane = int(threadIdx.x) % 32, head = int(threadIdx.x) / 32;
  const int first_head = int(threadIdx.x) / kPairs, d = int(threadIdx.x) % kPairs * 2;
  const int most = min(kKeys, kRoom / (w.heads * D));
  float* staged = reinterpret_cast<float*>(tiles.k);  // and tiles.v behind it
  load_parts<D>(op, w, 0, min(most, parts), staged);
  float largest = -INFINITY, sum = 0;
  const float2* scores = reinterpret_cast<const float2*>(Parts(op, w, head).scores);
#pragma unroll 4
  for (int c = head < w.heads ? lane : parts; c < parts; c += 32) {
    const float2 ms = __ldcg(scores + c);
    const float top = fmaxf(largest, ms.x);
    sum = sum * exp2_fast(largest - top) + ms.y * exp2_fast(ms.x - top), largest = top;
  }
  const float top = warp_max(largest);
  sum = warp_sum(largest == -INFINITY ? 0.0f : sum * exp2_fast(largest - top)), largest = top;
  float2 o[kHeads / kPass] = {};
  for (int base = 0; base < parts; base += most) {
    const int n = min(most, parts - base);
    if (base > 0) __syncthreads(), load_parts<D>(op, w, base, n, staged);
    for (int c = lane; c < n && head < w.heads; c += 32) {
      tiles.weights[head][c] = exp2_fast(__ldcg(scores + base + c).x - largest) / sum;
    }
    wait_for_copies();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kHeads / kPass; ++i) {
      const int h = first_head + i * kPass;
      if (h >= w.heads) continue;
#pragma unroll 8
      for (int c = 0; c < n; ++c) {
        const float2 x = *reinterpret_cast<const float2*>(staged + (h * n + c) * D + d);
        const float by = tiles.weights[h][c];
        o[i] = {fmaf(by, x.x, o[i].x), fmaf(by, x.y, o[i].y)};
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kHeads / kPass; ++i) {
    const int h = first_head + i * kPass;
    if (h < w.heads && d < op.dim) *reinterpret_cast<float2*>(op.out + w.t * op.out_stride + (w.head + h) * op.dim + d) = o[i];
  }
}

/// Sums to the output, if there is one part, or to that of `part`.
template <int D>
__device__ void write(const AttentionOp& op, const Work& w, int part, int d, const float (&o)[4], const Tiles<D>& tiles) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int at = d + lane / 4 + i / 2 * 8, h = lane % 4 * 2 + i % 2;
    if (at >= op.dim || h >= w.heads) continue;
    if (part < 0) {
      op.out[w.t * op.out_stride + (w.head + h) * op.dim + at] = o[i] / tiles.sum[h];
      continue;
    }
    const Parts to(op, w, h);
    to.sums[part * op.dim + at] = o[i];
    if (at == 0) to.scores[2 * part] = tiles.largest[h], to.scores[2 * part + 1] = tiles.sum[h];
  }
}

template <int D>
__global__ __launch_bounds__(kBlock + kMoreWarps * 32, 3) void half_decode_kernel(const __grid_constant__ AttentionOp op) {
  PLUMB_SHARED(uint8_t, shared);
  Tiles<D>& tiles = *reinterpret_cast<Tiles<D>*>(shared);
  let_successor_start();
  const int group = op.heads / op.kv_heads, octets = (group + kHeads - 1) / kHeads, octet = int(blockIdx.x) % octets;
  const int t = int(blockIdx.z), half = int(blockIdx.y), start = half * kKeys, warp = int(threadIdx.x) / 32;
  if (!op.fused) wait_for_predecessor();  // else everything up to the next wait is older than the token
  uint8_t* page = table_of(op.pages, t)[half / 2];
  const int pos = op.positions[t], from = op.window > 0 && pos >= op.window ? pos - op.window + 1 : 0;
  if (half < from / kKeys || half > pos / kKeys) return;
  const int kv_head = int(blockIdx.x) / octets;
  const Work w{t, pos, kv_head, kv_head * group + octet * kHeads, min(kHeads, group - octet * kHeads), max(from - start, 0),
               min(pos + 1 - start, kKeys), op.fused && half == pos / kKeys ? pos - start : -1};
  const int64_t pitch = int64_t(op.kv_heads) * op.dim, first = half % 2 * kKeys * pitch + kv_head * op.dim;
  if (warp < kWarps) {
    load_tile<D>(w, reinterpret_cast<const __half*>(page + op.k) + first, pitch, op.dim, tiles.k);
    load_tile<D>(w, reinterpret_cast<const __half*>(page + op.v) + first, pitch, op.dim, tiles.v);
  }
  clear_rest(op, w, tiles);
  const Head<D> head(op, w, page, tiles, warp);
  wait_for_predecessor();
  head.make(op, w);
  wait_for_copies<1>();
  __syncthreads();
  if (warp >= kWarps) return;
  score<D>(tiles, op.scale * kLog2e);
  __syncthreads();
  soften<D>(w, tiles);
  wait_for_copies();
  __syncthreads();
  const int parts = pos / kKeys + 1 - from / kKeys;
  for (int d = 16 * warp; d < D; d += 16 * kWarps) {
    float o[4] = {};
    weigh<D>(tiles, d, o);
    write<D>(op, w, parts == 1 ? -1 : half - from / kKeys, d, o, tiles);
  }
  if (parts > 1 && arrived_last(op, t, parts - 1)) join<D>(op, w, parts, tiles);
}

template <int D>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned(op.kv_heads * ((group + kHeads - 1) / kHeads)), unsigned(2 * op.chunks), unsigned(op.n));
  const int threads = (group < kHeads ? group : kHeads) + 2 > kWarps ? kBlock + kMoreWarps * 32 : kBlock;
  return launch(c, half_decode_kernel<D>, grid, threads, int(sizeof(Tiles<D>)), op);
}

}  // namespace

const char* half_decode(Context* c, const AttentionOp& op) {
  return op.dim <= 64 ? run<64>(c, op) : op.dim <= 128 ? run<128>(c, op) : run<256>(c, op);
}

}  // namespace plumb::cuda
