// Attention of many tokens in halves on tensor cores, with f32 sums (docs/numerics.md, `--act f16`). A block takes 128 rows (token
// by token, the query heads of one kv head together), a warp 16 of them, and goes over tiles of 64 keys at absolute positions in
// ascending order with a running maximum. A tile that a row does not see changes nothing of that row: a row depends neither on the
// rows beside it nor on how a prompt was split. Heads of up to 128 have tile_attention.cu where there is `wgmma`.
#include "cuda/half_attention.cuh"

namespace plumb::cuda {
namespace {

constexpr int kRows = 128, kKeys = kAttentionKeys, kBlock = 256;

template <int D>
constexpr int kPitch = D + 8;  // halves: rows of a tile fall into different banks
template <int D>
constexpr int kTile = kKeys * kPitch<D>;

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
__device__ void score(const __half* q, const __half* k, float (&s)[kKeys / 2]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (float& x : s) x = 0;
#pragma unroll
  for (int d = 0; d < D; d += 16) {
    uint32_t a[4];
    load_matrices(a, q + lane % 16 * kPitch<D> + d + lane / 16 * 8);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
      uint32_t b[4];
      load_matrices(b, k + (16 * n + lane % 8 + lane / 16 * 8) * kPitch<D> + d + lane / 8 % 2 * 8);
      multiply(s + 8 * n, a, b[0], b[1]);
      multiply(s + 8 * n + 4, a, b[2], b[3]);
    }
  }
}

/// o [16 rows][D] += weights v.
template <int D>
__device__ void weigh(float (&o)[D / 2], const float (&s)[kKeys / 2], const __half* v) {
  const int lane = int(threadIdx.x) % 32;
  uint32_t a[kKeys / 16][4];
  Softmax::pack(s, a);
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
#pragma unroll
    for (int n = 0; n < D / 16; ++n) {
      uint32_t b[4];
      load_matrices_transposed(b, v + (16 * k + lane % 16) * kPitch<D> + 16 * n + lane / 16 * 8);
      multiply(o + 8 * n, a[k], b[0], b[1]);
      multiply(o + 8 * n + 4, a[k], b[2], b[3]);
    }
  }
}

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
  const AttentionSpan span(op, group, first_row, kRows);
  const int64_t pitch = int64_t(op.kv_heads) * op.dim;
  const auto load = [&](int start, int stage) {  // a tile lies in one page
    const uint8_t* page = op.pages.tables[start / kAttentionChunk];
    const int64_t first = start % kAttentionChunk * pitch + kv_head * op.dim;
    __half* tile = tiles + stage * 2 * kTile<D>;
    load_tile<D>(reinterpret_cast<const __half*>(page + op.k) + first, pitch, op.dim, span.last - start, tile);
    load_tile<D>(reinterpret_cast<const __half*>(page + op.v) + first, pitch, op.dim, span.last - start, tile + kTile<D>);
    commit_copies();
  };
  load(span.begin, 0);
  load_queries<D>(op, group, kv_head, first_row, q);
  const AttentionRows rows = attention_rows(op, group, kv_head, first_row + 16 * warp + int(threadIdx.x) % 32 / 4);
  Softmax softmax;
  float o[D / 2] = {};
  for (int start = span.begin, stage = 0; start < span.last; start += kKeys, stage ^= 1) {
    wait_for_copies();
    __syncthreads();
    if (start + kKeys < span.last) load(start + kKeys, stage ^ 1);
    const __half* tile = tiles + stage * 2 * kTile<D>;
    float s[kKeys / 2], old[2];
    score<D>(q + 16 * warp * kPitch<D>, tile, s);
    softmax.soften(s, rows, start, op.scale * kLog2e, old);
    if (!all_kept(old)) rescale(o, old);
    weigh<D>(o, s, tile + kTile<D>);
  }
  const float inverse[2] = {softmax.inverse(0), softmax.inverse(1)};
  write_rows(op, rows, o, inverse);
}

template <int D>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads;
  const dim3 grid(unsigned((op.longest * group + kRows - 1) / kRows), unsigned(op.kv_heads), unsigned(op.n_runs));
  return launch(c, half_attention_kernel<D>, grid, kBlock, (kRows * kPitch<D> + 4 * kTile<D>)*2, op, group);
}

}  // namespace

const char* half_attention(Context* c, const AttentionOp& op) {
  if (c->warpgroups && op.dim <= 128) return tile_attention(c, op);
  return op.dim <= 64 ? run<64>(c, op) : op.dim <= 128 ? run<128>(c, op) : run<256>(c, op);
}

}  // namespace plumb::cuda
