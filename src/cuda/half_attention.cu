// Attention of many tokens in halves on tensor cores, with f32 sums (docs/numerics.md, `--act f16`). A block takes 128 rows (token
// by token, the query heads of one kv head together), a warp 16 of them, and goes over tiles of 64 keys at absolute positions in
// ascending order with a running maximum. A tile that a row does not see changes nothing of that row: a row depends neither on the
// rows beside it nor on how a prompt was split.
#include "cuda/half.cuh"
#include "cuda/heads.cuh"

namespace plumb::cuda {
namespace {

constexpr int kRows = 128, kKeys = 64, kBlock = 256;
constexpr float kLog2e = 0x1.715476p0f;

template <int D>
constexpr int kPitch = D + 8;  // halves: rows of a tile fall into different banks
template <int D>
constexpr int kTile = kKeys * kPitch<D>;

struct Rows {  // of a thread in its warp's tile: 0 and 8 behind the first
  int t[2], head[2], first[2], last[2];  // token, query head, keys first <= key < last
};

__device__ Rows rows_of(const AttentionOp& op, int group, int kv_head, int row) {
  Rows r;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = row + 8 * i;
    r.t[i] = at / group, r.head[i] = kv_head * group + at % group;
    const int pos = op.positions[min(r.t[i], op.n - 1)];
    r.first[i] = op.window > 0 && pos >= op.window ? pos - op.window + 1 : 0, r.last[i] = pos + 1;
  }
  return r;
}

/// Starts copies of kKeys keys or values, [kKeys][D]; zeros behind the last of `keys` and beside the head.
template <int D>
__device__ void load_tile(const __half* from, int64_t pitch, int dim, int keys, __half* to) {
  for (int i = int(threadIdx.x); i < kKeys * D / 8; i += kBlock) {
    const int key = i / (D / 8), d = i % (D / 8) * 8;
    const bool valid = key < keys && d < dim;
    copy16(to + key * kPitch<D> + d, from + (valid ? key * pitch + d : 0), valid);
  }
}

/// The query rows of the block as halves, [kRows][D].
template <int D>
__device__ void load_queries(const AttentionOp& op, int group, int kv_head, int first_row, __half* to) {
  for (int i = int(threadIdx.x); i < kRows * D / 8; i += kBlock) {
    const int r = i / (D / 8), d = i % (D / 8) * 8, t = (first_row + r) / group;
    uint4 out = {0, 0, 0, 0};
    if (t < op.n && d < op.dim) {
      const float* x = op.q + t * op.q_stride + (kv_head * group + (first_row + r) % group) * op.dim + d;
#pragma unroll
      for (int k = 0; k < 4; ++k) (&out.x)[k] = bits(__floats2half2_rn(x[2 * k], x[2 * k + 1]));
    }
    *reinterpret_cast<uint4*>(to + r * kPitch<D> + d) = out;
  }
}

/// s [16 rows][64 keys] = q k.
template <int D>
__device__ void score(const __half* q, const __half* k, float (&s)[8][4]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < 8; ++n) s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    uint32_t a[4];
    load_matrices(a, q + lane % 16 * kPitch<D> + d + lane / 16 * 8);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      uint32_t b[4];
      load_matrices(b, k + (16 * n + lane % 8 + lane / 16 * 8) * kPitch<D> + d + lane / 8 % 2 * 8);
      multiply(s[2 * n], a, b[0], b[1]);
      multiply(s[2 * n + 1], a, b[2], b[3]);
    }
  }
}

// What a thread knows of its two rows.
template <int D>
struct Running {
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // sum: over the thread's own keys
  float o[D / 8][4] = {};

  /// Scores to weights 2^(scale (s - largest)); what came before is brought to the new maximum.
  __device__ void soften(float (&s)[8][4], const Rows& rows, int start, float scale) {
    mask(s, rows, start);
    float old[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = largest[i];
#pragma unroll
      for (int n = 0; n < 8; ++n) top = fmaxf(top, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      old[i] = top == largest[i] ? 1.0f : exp2_fast((largest[i] - top) * scale);  // exactly 1 where nothing changes
      largest[i] = top;
      const float base = top == -INFINITY ? 0.0f : top * scale;
      float added = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[n][2 * i + e];
          x = exp2_fast(fmaf(x, scale, -base)), added += x;
        }
      }
      sum[i] = sum[i] * old[i] + added;
    }
    if (__ballot_sync(~0u, old[0] != 1.0f || old[1] != 1.0f) == 0) return;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) o[n][0] *= old[0], o[n][1] *= old[0], o[n][2] *= old[1], o[n][3] *= old[1];
  }

  __device__ static void mask(float (&s)[8][4], const Rows& rows, int start) {
    const int lane = int(threadIdx.x) % 32;
    const auto whole = [&](int i) { return rows.first[i] <= start && start + kKeys <= rows.last[i]; };
    if (__ballot_sync(~0u, !whole(0) || !whole(1)) == 0) return;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = start + 8 * n + lane % 4 * 2 + e % 2;
        if (key < rows.first[e / 2] || key >= rows.last[e / 2]) s[n][e] = -INFINITY;
      }
    }
  }

  /// o += e v.
  __device__ void weigh(const float (&e)[8][4], const __half* v) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = bits(__floats2half2_rn(e[2 * k + i / 2][i % 2 * 2], e[2 * k + i / 2][i % 2 * 2 + 1]));
#pragma unroll
      for (int n = 0; n < D / 16; ++n) {
        uint32_t b[4];
        load_matrices_transposed(b, v + (16 * k + lane % 16) * kPitch<D> + 16 * n + lane / 16 * 8);
        multiply(o[2 * n], a, b[0], b[1]);
        multiply(o[2 * n + 1], a, b[2], b[3]);
      }
    }
  }

  __device__ void write(const AttentionOp& op, const Rows& rows) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float all = sum[i] + __shfl_xor_sync(~0u, sum[i], 1);
      all += __shfl_xor_sync(~0u, all, 2);
      if (rows.t[i] >= op.n) continue;
      const float inverse = 1.0f / all;
      float* to = op.out + rows.t[i] * op.out_stride + rows.head[i] * op.dim;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        const int d = 8 * n + lane % 4 * 2;
        if (d < op.dim) *reinterpret_cast<float2*>(to + d) = {o[n][2 * i] * inverse, o[n][2 * i + 1] * inverse};
      }
    }
  }
};

template <int D>
__global__ __launch_bounds__(kBlock, D <= 64 ? 2 : 1) void half_attention_kernel(const __grid_constant__ AttentionOp all, int group) {
  PLUMB_SHARED(__half, shared);  // queries, then two stages of keys and values
  __half *q = shared, *tiles = shared + kRows * kPitch<D>;
  // Blocks of the last rows, which see most keys, first.
  const int first_row = int(gridDim.x - 1 - blockIdx.x) * kRows, kv_head = int(blockIdx.y), warp = int(threadIdx.x) / 32;
  let_successor_start();
  wait_for_predecessor();
  const AttentionOp op = run_of(all, int(blockIdx.z));
  if (first_row >= op.n * group) return;
  const int lowest = op.positions[first_row / group], last = op.positions[min((first_row + kRows - 1) / group, op.n - 1)] + 1;
  const int from = op.window > 0 && lowest >= op.window ? lowest - op.window + 1 : 0;
  const int64_t pitch = int64_t(op.kv_heads) * op.dim;
  const auto load = [&](int start, int stage) {  // a tile lies in one page
    const uint8_t* page = op.pages.tables[start / kAttentionChunk];
    const int64_t first = start % kAttentionChunk * pitch + kv_head * op.dim;
    load_tile<D>(reinterpret_cast<const __half*>(page + op.k) + first, pitch, op.dim, last - start, tiles + stage * 2 * kTile<D>);
    load_tile<D>(reinterpret_cast<const __half*>(page + op.v) + first, pitch, op.dim, last - start, tiles + (stage * 2 + 1) * kTile<D>);
    commit_copies();
  };
  const int begin = from / kKeys * kKeys;
  load(begin, 0);
  load_queries<D>(op, group, kv_head, first_row, q);
  const Rows rows = rows_of(op, group, kv_head, first_row + 16 * warp + int(threadIdx.x) % 32 / 4);
  Running<D> running;
  for (int start = begin, stage = 0; start < last; start += kKeys, stage ^= 1) {
    wait_for_copies();
    __syncthreads();
    if (start + kKeys < last) load(start + kKeys, stage ^ 1);
    const __half* tile = tiles + stage * 2 * kTile<D>;
    float s[8][4];
    score<D>(q + 16 * warp * kPitch<D>, tile, s);
    running.soften(s, rows, start, op.scale * kLog2e);
    running.weigh(s, tile + kTile<D>);
  }
  running.write(op, rows);
}

template <int D>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned((op.longest * group + kRows - 1) / kRows), unsigned(op.kv_heads), unsigned(op.n_runs));
  return launch(c, half_attention_kernel<D>, grid, kBlock, (kRows * kPitch<D> + 4 * kTile<D>)*2, op, group);
}

}  // namespace

const char* half_attention(Context* c, const AttentionOp& op) {
  return op.dim <= 64 ? run<64>(c, op) : op.dim <= 128 ? run<128>(c, op) : run<256>(c, op);
}

}  // namespace plumb::cuda
