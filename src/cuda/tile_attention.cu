// half_attention.cu on Hopper's tensor cores, for heads of up to 128: the same keys, order and roundings, but groups of four warps
// multiply whole tiles (`wgmma`, tile.cuh), 64 rows each. Four more warps bring queries, keys and values; one block per processor goes
// from rows to rows, so that the next ones' are on their way. Scores of the next keys and these values by their weights are on the
// tensor cores together; meanwhile the scores become weights.
#include "cuda/half_attention.cuh"

namespace plumb::cuda {
namespace {

constexpr int kGroupRows = 64, kGroup = 128, kStages = 3;
constexpr int kTileBytes = 64 * kTileRowBytes;  // of 64 columns of 64 rows, keys or values
template <int D>
constexpr int kGroups = D <= 64 ? 3 : 2;  // that multiply: as many as there are registers for

template <int D>
using Tile = uint8_t[D / kTileColumns][kTileBytes];  // 64 columns beside 64 columns

template <int D>
struct Shared {
  Tile<D> q[2][kGroups<D>], k[kStages], v[kStages];
};

struct Barriers {  // one side fills, the other empties
  TileBarrier full, empty;
};

/// Where tiles wait between the warps that bring them and those that multiply; each side counts for itself.
template <int D>
struct Ring {
  Shared<D>& shared;
  Barriers *q, *k, *v;  // [2], [kStages], [kStages]
  int tiles = 0, blocks = 0;  // before these

  __device__ int stage(int i) const { return (tiles + i) % kStages; }
  __device__ int parity(int i) const { return (tiles + i) / kStages % 2; }
  __device__ int buffer() const { return blocks % 2; }
  __device__ int buffer_parity() const { return blocks / 2 % 2; }
};

/// Rows of one kv head of one run that a block works at; the first of all are those that see most keys.
template <int D>
struct Place {
  int run, kv_head, first_row;
  static constexpr int kRows = kGroups<D> * kGroupRows;
  __device__ Place(const AttentionOp& op, int i, int row_blocks) {
    run = i % op.n_runs, kv_head = i / op.n_runs % op.kv_heads;
    first_row = (row_blocks - 1 - i / op.n_runs / op.kv_heads) * kRows;
  }
};

/// Calls work(op of the run, place, span) for this block's share; every other time from the end, so that shares are alike.
template <int D, class Work>
__device__ void for_each_place(const AttentionOp& all, int group, int row_blocks, Work work) {
  const int places = row_blocks * all.kv_heads * all.n_runs, step = int(gridDim.x);
  for (int first = 0, turn = 0; first < places; first += step, ++turn) {
    const int i = first + (turn % 2 == 0 ? int(blockIdx.x) : step - 1 - int(blockIdx.x));
    if (i >= places) continue;
    const Place<D> at(all, i, row_blocks);
    const AttentionOp op = run_of(all, at.run);
    if (at.first_row >= op.n * group) continue;
    work(op, at, AttentionSpan(op, group, at.first_row, at.kRows));
  }
}

/// Starts copies of 64 keys or values; zeros behind the last of `keys` and beside the head. A thread takes a piece of every kStep-th.
template <int D>
__device__ void bring(const __half* from, int pitch, int dim, int keys, Tile<D>& to) {
  constexpr int kPieces = D / 8, kStep = kGroup / kPieces;
  static_assert(kStep % 8 == 0);  // so that all of a thread's keys are permuted alike
  const int thread = int(threadIdx.x) % kGroup, piece = thread % kPieces, first = thread / kPieces;
  const bool beside = piece * 8 >= dim;
  uint8_t* at = to[piece / 8] + tile_offset(first, piece % 8);
  const __half* row = from + (beside ? 0 : first * pitch + piece * 8);
#pragma unroll
  for (int i = 0; i < kAttentionKeys / kStep; ++i, row += kStep * pitch) {
    const bool valid = !beside && first + i * kStep < keys;
    copy16(at + i * kStep * kTileRowBytes, valid ? row : from, valid);
  }
}

/// The query rows as halves. All of a group's are asked for before the first is rounded.
template <int D>
__device__ void bring_queries(const AttentionOp& op, const Place<D>& at, int group, Tile<D> (&to)[kGroups<D>]) {
  constexpr int kPieces = D / 8, kStep = kGroup / kPieces, kEach = kGroupRows / kStep;
  const int thread = int(threadIdx.x) % kGroup, piece = thread % kPieces, first = thread / kPieces;
#pragma unroll
  for (int g = 0; g < kGroups<D>; ++g) {
    float4 x[kEach][2];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int row = at.first_row + g * kGroupRows + first + i * kStep, t = row / group;
      x[i][0] = x[i][1] = {0, 0, 0, 0};
      if (t >= op.n || piece * 8 >= op.dim) continue;
      const float* from = op.q + t * op.q_stride + (at.kv_head * group + row % group) * op.dim + piece * 8;
      x[i][0] = *reinterpret_cast<const float4*>(from), x[i][1] = *reinterpret_cast<const float4*>(from + 4);
    }
    uint8_t* out = to[g][piece / 8] + tile_offset(first, piece % 8);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const float4 a = x[i][0], b = x[i][1];
      *reinterpret_cast<uint4*>(out + i * kStep * kTileRowBytes) = {bits(__floats2half2_rn(a.x, a.y)), bits(__floats2half2_rn(a.z, a.w)),
                                                                    bits(__floats2half2_rn(b.x, b.y)), bits(__floats2half2_rn(b.z, b.w))};
    }
  }
}

#ifdef PLUMB_WGMMA
/// By four warps: all that the others need.
template <int D>
__device__ void produce(const AttentionOp& all, int group, int row_blocks, Ring<D> ring) {
  for_each_place<D>(all, group, row_blocks, [&](const AttentionOp& op, const Place<D>& at, const AttentionSpan& span) {
    const int pitch = op.kv_heads * op.dim, tiles = span.tiles();
    for (int i = 0; i < tiles; ++i) {
      const int start = span.begin + i * kAttentionKeys, s = ring.stage(i), empty = ring.parity(i) ^ 1;
      const uint8_t* page = op.pages.tables[start / kAttentionChunk];  // a tile lies in one page
      const int64_t first = int64_t(start % kAttentionChunk) * pitch + at.kv_head * op.dim;
      wait(ring.k[s].empty, empty);
      bring<D>(reinterpret_cast<const __half*>(page + op.k) + first, pitch, op.dim, span.last - start, ring.shared.k[s]);
      arrive_when_copied(ring.k[s].full);
      if (i == 0) {
        wait(ring.q[ring.buffer()].empty, ring.buffer_parity() ^ 1);
        bring_queries<D>(op, at, group, ring.shared.q[ring.buffer()]);
        arrive(ring.q[ring.buffer()].full);
      }
      wait(ring.v[s].empty, empty);
      bring<D>(reinterpret_cast<const __half*>(page + op.v) + first, pitch, op.dim, span.last - start, ring.shared.v[s]);
      arrive_when_copied(ring.v[s].full);
    }
    ring.tiles += tiles, ++ring.blocks;
  });
}

__device__ inline void release(TileBarrier& empty) {
  if (threadIdx.x % 32 == 0) arrive(empty);
}

/// What a group of four warps does with its 64 rows.
template <int D>
struct Consumer {
  const Ring<D>& ring;
  int group;  // of warps
  float s[kAttentionKeys / 2], o[D / 2] = {};
  uint32_t weights[kAttentionKeys / 16][4];
  Softmax softmax;

  /// Starts s [64 rows][64 keys] = q k of tile i.
  __device__ void score(int i) {
    const auto& q = ring.shared.q[ring.buffer()][group];
#pragma unroll
    for (int c = 0; c < D / kTileColumns; ++c) multiply_tiles(s, q[c], ring.shared.k[ring.stage(i)][c], c > 0);
    commit_tiles();
  }
  /// Starts o [64 rows][D] += weights v of tile i.
  __device__ void weigh(int i) {
    multiply_columns(o, weights, ring.shared.v[ring.stage(i)][0]);
    commit_tiles();
  }
  __device__ void attend(const AttentionRows& rows, const AttentionSpan& span, float scale) {
    const int tiles = span.tiles();
    float old[2];
    wait(ring.q[ring.buffer()].full, ring.buffer_parity());
    wait(ring.k[ring.stage(0)].full, ring.parity(0));
    publish_stores();  // the copies', which are none of the tensor cores'
    start_tiles();
    score(0);
    wait_for_tiles<0>();
    hold(s);
    release(ring.k[ring.stage(0)].empty);
    softmax.soften(s, rows, span.begin, scale, old);
    Softmax::pack(s, weights);
    for (int i = 0; i + 1 < tiles; ++i) {
      wait(ring.k[ring.stage(i + 1)].full, ring.parity(i + 1));
      wait(ring.v[ring.stage(i)].full, ring.parity(i));
      publish_stores();
      start_tiles();
      score(i + 1);
      weigh(i);
      wait_for_tiles<1>();
      hold(s);
      release(ring.k[ring.stage(i + 1)].empty);
      softmax.soften(s, rows, span.begin + (i + 1) * kAttentionKeys, scale, old);
      wait_for_tiles<0>();
      hold(o);
      release(ring.v[ring.stage(i)].empty);
      Softmax::pack(s, weights);
      if (!all_kept(old)) rescale(o, old);
    }
    release(ring.q[ring.buffer()].empty);
    wait(ring.v[ring.stage(tiles - 1)].full, ring.parity(tiles - 1));
    publish_stores();
    start_tiles();
    weigh(tiles - 1);
    wait_for_tiles<0>();
    hold(o);
    release(ring.v[ring.stage(tiles - 1)].empty);
  }
};

template <int D>
__device__ void consume(const AttentionOp& all, int group, int row_blocks, Ring<D> ring) {
  const int of = of_warp(int(threadIdx.x) / kGroup), row = int(threadIdx.x) / 32 * 16 + int(threadIdx.x) % 32 / 4;
  for_each_place<D>(all, group, row_blocks, [&](const AttentionOp& op, const Place<D>& at, const AttentionSpan& span) {
    const AttentionRows rows = attention_rows(op, group, at.kv_head, at.first_row + row);
    Consumer<D> c{ring, of};
    c.attend(rows, span, op.scale * kLog2e);
    const float inverse[2] = {c.softmax.inverse(0), c.softmax.inverse(1)};
    write_rows(op, rows, c.o, inverse);
    ring.tiles += span.tiles(), ++ring.blocks;
  });
}
#endif

template <int D>
__global__ __launch_bounds__((kGroups<D> + 1) * kGroup, 1) void tile_attention_kernel(const __grid_constant__ AttentionOp op, int group,
                                                                                     int row_blocks) {
#ifdef PLUMB_WGMMA
  PLUMB_SHARED(uint8_t, memory);
  __shared__ Barriers q[2], k[kStages], v[kStages];
  let_successor_start();
  if (threadIdx.x == 0) {
    const auto prepare = [](Barriers& b) { init(b.full, kGroup), init(b.empty, kGroups<D> * kGroup / 32); };
    for (Barriers& b : q) prepare(b);
    for (int i = 0; i < kStages; ++i) prepare(k[i]), prepare(v[i]);
    publish_barriers();
  }
  __syncthreads();
  auto& shared = *reinterpret_cast<Shared<D>*>(memory + (1024 - reinterpret_cast<uintptr_t>(memory) % 1024) % 1024);
  const Ring<D> ring{shared, q, k, v};
  wait_for_predecessor();
  if (int(threadIdx.x) / kGroup == kGroups<D>) return produce(op, group, row_blocks, ring);
  consume(op, group, row_blocks, ring);
#endif
}

template <int D>
const char* run(Context* c, const AttentionOp& op) {
  const int group = op.heads / op.kv_heads, row_blocks = (op.longest * group + Place<D>::kRows - 1) / Place<D>::kRows;
  const int places = row_blocks * op.kv_heads * op.n_runs;
  const dim3 grid(unsigned(places < c->processors ? places : c->processors));
  return launch(c, tile_attention_kernel<D>, grid, (kGroups<D> + 1) * kGroup, int(sizeof(Shared<D>)) + 1024, op, group, row_blocks);
}

}  // namespace

const char* tile_attention(Context* c, const AttentionOp& op) { return op.dim <= 64 ? run<64>(c, op) : run<128>(c, op); }

}  // namespace plumb::cuda
