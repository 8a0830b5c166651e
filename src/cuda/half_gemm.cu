// Many tokens times matrices of any format on Hopper's tensor cores, in halves with f32 sums (docs/numerics.md, `--act f16`). Eight
// warps, four of them a step of 64 columns in turn, bring weights to shared memory some steps ahead and decode them into tiles, next
// to tiles of activations that the copy engine brings; eight more multiply. A sum goes over ascending columns, 16 at a time: it
// depends neither on the tokens beside it nor on the tile.
#include "cuda/exact.cuh"
#include "cuda/half.cuh"

namespace plumb::cuda {
namespace {

constexpr int kGroup = 128, kBlock = 4 * kGroup;  // threads of four warps
constexpr int kTokenBytes = kTileTokens * kTileRowBytes;

// 128 B tokens by N rows.
template <int B, int N>
struct Stage {
  uint8_t tokens[B * kTokenBytes], weights[N * kTileRowBytes];
};
template <int B, int N>
constexpr int kStages = B == 2 ? 4 : N == 128 ? 5 : 6;
template <int B>
constexpr int kRingBytes = B == 2 ? 32 << 10 : 64 << 10;  // of weights on their way

// Stages between the warps that fill and those that empty them; each side keeps its own count of steps.
template <int B, int N>
struct Ring {
  Stage<B, N>* stages;
  uint4* weights;  // kRingBytes<B>; each thread has its own pieces
  TileBarrier *full, *empty;
  unsigned count = 0;
  __device__ int stage(unsigned step) const { return int((count + step) % kStages<B, N>); }
  __device__ int parity(unsigned step) const { return int((count + step) / kStages<B, N> % 2); }
};

struct Place {  // of a tile: first row of a part, first token
  int part, row, token;
};

/// N rows of weights: of one part, or half of them of gate and half of up.
template <int B, int N, bool kGlu>
__device__ Place place_of(const LinearOp& op, int tile) {
  constexpr int kRows = kGlu ? N / 2 : N, kM = B * kTileTokens;
  const int tokens = (op.n + kM - 1) / kM;
  Place at{0, tile / tokens * kRows, tile % tokens * kM};
  while (!kGlu && at.part + 1 < op.parts && at.row >= (op.w[at.part].rows + kRows - 1) / kRows * kRows) {
    at.row -= (op.w[at.part++].rows + kRows - 1) / kRows * kRows;
  }
  return at;
}

/// The matrix and row of row r of a tile; rows behind the last repeat it.
template <int N, bool kGlu>
__device__ const Matrix& row_of(const LinearOp& op, Place at, int r, int& row) {
  const Matrix& m = op.w[kGlu ? r / (N / 2) : at.part];
  row = min(at.row + (kGlu ? r % (N / 2) : r), m.rows - 1);
  return m;
}

/// A thread's weights of a step, of quantised rows: a warp takes 16 rows by 2 units at a time. Pieces of a thread lie 2 kGroup apart.
template <int F, int N, bool kGlu>
struct Weights {
  static constexpr int kPieces = Unit<F>::kPieces, kAll = N / 64 * kPieces;
  __device__ static int tile_row(int i) { return (int(threadIdx.x) % kGroup / 32 + 4 * i) * kRowGroup + int(threadIdx.x) % kRowGroup; }
  __device__ static int half() { return int(threadIdx.x) % 32 / kRowGroup; }
  __device__ static void copy(const LinearOp& op, Place at, int step, uint4* to) {
    const int u = 2 * step + half();
#pragma unroll
    for (int i = 0; i < N / 64; ++i) {
      int row = 0;
      const Matrix& m = row_of<N, kGlu>(op, at, tile_row(i), row);
      Unit<F>::copy(m, row, u, u < m.columns / 32, to + i * kPieces * 2 * kGroup, 2 * kGroup);
    }
  }
  __device__ static void store(const LinearOp& op, Place at, int step, const uint4* from, uint8_t* tile) {
#pragma unroll
    for (int i = 0; i < N / 64; ++i) {
      int row = 0;
      row_of<N, kGlu>(op, at, tile_row(i), row);
      Unit<F> unit;
      unit.take(row, from + i * kPieces * 2 * kGroup, 2 * kGroup);
      uint4 out[4];
      decode_halves(unit, 2 * step + half(), out);
#pragma unroll
      for (int c = 0; c < 4; ++c) *reinterpret_cast<uint4*>(tile + tile_offset(tile_row(i), 4 * half() + c)) = out[c];
    }
  }
};

/// The same of float rows: a warp takes 4 rows by 64 columns at a time.
template <int F, int N, bool kGlu>
  requires(!quantised(F))
struct Weights<F, N, kGlu> {
  static constexpr int kUnits = 8 / Unit<F>::kWeights, kAll = N / 16 * kUnits;
  __device__ static int tile_row(int i) { return int(threadIdx.x) % kGroup / 8 + 16 * i; }
  __device__ static void copy(const LinearOp& op, Place at, int step, uint4* to) {
    const int column = step * kTileColumns + int(threadIdx.x) % 8 * 8;
#pragma unroll
    for (int i = 0; i < kAll; ++i) {
      int row = 0;
      const Matrix& m = row_of<N, kGlu>(op, at, tile_row(i / kUnits), row);
      Unit<F>::copy(m, row, column / Unit<F>::kWeights + i % kUnits, column < m.columns, to + i * 2 * kGroup, 0);
    }
  }
  __device__ static void store(const LinearOp&, Place, int, const uint4* from, uint8_t* tile) {
#pragma unroll
    for (int i = 0; i < N / 16; ++i) {
      Unit<F> unit[kUnits];
#pragma unroll
      for (int k = 0; k < kUnits; ++k) unit[k].q = from[(i * kUnits + k) * 2 * kGroup];
      *reinterpret_cast<uint4*>(tile + tile_offset(tile_row(i), int(threadIdx.x) % 8)) = float_halves(unit);
    }
  }
};

/// Fills every other stage with a tile's columns.
template <int F, int B, int N, bool kGlu>
__device__ void produce(const LinearOp& op, Place at, int steps, Ring<B, N>& ring, bool first) {
  using W = Weights<F, N, kGlu>;
  constexpr int kSlot = W::kAll * 2 * kGroup, kMost = kRingBytes<B> / 16 / kSlot, kDepth = kMost < 4 ? kMost : 4;
  static_assert(kDepth > 0);
  uint4* mine = ring.weights + threadIdx.x;
  const int start = int(ring.count + threadIdx.x / kGroup) % 2;
#pragma unroll
  for (int i = 0; i < kDepth; ++i) {
    if (start + 2 * i < steps) W::copy(op, at, start + 2 * i, mine + i * kSlot);
    commit_copies();
  }
  if (first) wait_for_predecessor();
  const uint8_t* x16 = reinterpret_cast<const uint8_t*>(op.x16) + int64_t(at.token / kTileTokens) * steps * kTokenBytes;
  const int blocks = min(B, (op.n - at.token + kTileTokens - 1) / kTileTokens);
  for (int step = start, slot = 0; step < steps; step += 2, slot = slot + 1 == kDepth ? 0 : slot + 1) {
    Stage<B, N>& stage = ring.stages[ring.stage(step)];
    TileBarrier& full = ring.full[ring.stage(step)];
    wait(ring.empty[ring.stage(step)], ring.parity(step) ^ 1);
    if (threadIdx.x % kGroup == 0) {
      arrive_for(full, blocks * kTokenBytes);
      for (int b = 0; b < blocks; ++b) {
        copy_bulk(stage.tokens + b * kTokenBytes, x16 + int64_t(b * steps + step) * kTokenBytes, kTokenBytes, full);
      }
    }
    wait_for_copies<kDepth - 1>();
    W::store(op, at, step, mine + slot * kSlot, stage.weights);
    publish_stores();
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(full);
    if (step + 2 * kDepth < steps) W::copy(op, at, step + 2 * kDepth, mine + slot * kSlot);
    commit_copies();
  }
}

/// The same where weights lie in memory as tiles: the copy engine brings them too.
template <int B, int N, bool kGlu>
__device__ void produce_tiles(const LinearOp& op, Place at, int steps, Ring<B, N>& ring, bool first) {
  constexpr int kParts = kGlu ? 2 : 1, kPartBytes = N / kParts * kTileRowBytes;
  if (first) wait_for_predecessor();
  const uint8_t* x16 = reinterpret_cast<const uint8_t*>(op.x16) + int64_t(at.token / kTileTokens) * steps * kTokenBytes;
  const int blocks = min(B, (op.n - at.token + kTileTokens - 1) / kTileTokens);
  for (int step = int(ring.count + threadIdx.x / kGroup) % 2; step < steps; step += 2) {
    Stage<B, N>& stage = ring.stages[ring.stage(step)];
    TileBarrier& full = ring.full[ring.stage(step)];
    wait(ring.empty[ring.stage(step)], ring.parity(step) ^ 1);
    if (threadIdx.x % kGroup == 0) {
      arrive_for(full, blocks * kTokenBytes + kParts * kPartBytes);
      for (int b = 0; b < blocks; ++b) {
        copy_bulk(stage.tokens + b * kTokenBytes, x16 + int64_t(b * steps + step) * kTokenBytes, kTokenBytes, full);
      }
      for (int p = 0; p < kParts; ++p) {
        const uint8_t* tile = op.w[at.part + p].q + (int64_t(at.row / kTileRows) * steps + step) * kTileRows * kTileRowBytes;
        copy_bulk(stage.weights + p * kPartBytes, tile + at.row % kTileRows * kTileRowBytes, kPartBytes, full);
      }
    }
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(full);
  }
}

#ifdef PLUMB_WGMMA
/// acc [B][64 tokens][N], of this group of warps, = the tile's sums.
template <int B, int N>
__device__ void consume(float (&acc)[B][N / 2], int group, int steps, Ring<B, N>& ring) {
  int before = -1;
  for (int step = 0; step < steps; ++step) {
    const Stage<B, N>& stage = ring.stages[ring.stage(step)];
    wait(ring.full[ring.stage(step)], ring.parity(step));
    start_tiles();
#pragma unroll
    for (int b = 0; b < B; ++b) multiply_tiles(acc[b], stage.tokens + (group * B + b) * 64 * kTileRowBytes, stage.weights, step > 0);
    commit_tiles();
    wait_for_tiles<1>();
    if (before >= 0 && threadIdx.x % 32 == 0) arrive(ring.empty[before]);
    before = ring.stage(step);
  }
  wait_for_tiles<0>();
  if (threadIdx.x % 32 == 0) arrive(ring.empty[before]);
  ring.count += steps;
}

/// Up to two outputs of rows side by side: bias and residual, where there are any.
__device__ void put(const LinearOp& op, int part, int t, int row, float2 v) {
  const int left = op.w[part].rows - row;
  if (left <= 0) return;
  if (op.residual) {
    const float* from = op.residual + t * op.residual_stride + row;
    v.x = from[0] + v.x;
    if (left > 1) v.y = from[1] + v.y;
  }
  float* to = op.y[part] + t * op.y_stride[part] + row;
  if (left > 1) *reinterpret_cast<float2*>(to) = v;
  if (left == 1) *to = v.x;
}

__device__ inline float2 scaled(const LinearOp& op, int part, int row, float a, float b, float scale) {
  float2 v{a * scale, b * scale};
  const float* bias = op.bias[part];
  if (bias && row < op.w[part].rows) v.x += bias[row];
  if (bias && row + 1 < op.w[part].rows) v.y += bias[row + 1];
  return v;
}

template <int N, bool kGlu>
__device__ void write(const LinearOp& op, Place at, int first_token, const float (&acc)[N / 2]) {
  const int warp = int(threadIdx.x) / 32 % 4, lane = int(threadIdx.x) % 32;
  const float by = quantised(op.w[at.part].format) ? 1 / kCodeScale : 1.0f;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = first_token + 16 * warp + lane / 4 + 8 * i;
    if (t >= op.n) continue;
    const float x = op.x16_scale[t];
#pragma unroll
    for (int j = 0; j < (kGlu ? N / 16 : N / 8); ++j) {
      const int row = at.row + 8 * j + lane % 4 * 2, k = 4 * j + 2 * i;
      float2 v = scaled(op, at.part, row, acc[k], acc[k + 1], x * by);
      if constexpr (kGlu) {
        const float2 up = scaled(op, 1, row, acc[k + N / 4], acc[k + N / 4 + 1], x * by);
        v = {activate(op.glu, v.x) * up.x, activate(op.glu, v.y) * up.y};
      }
      put(op, at.part, t, row, v);
    }
  }
}
#endif

template <int B, int N, bool kGlu>
__device__ void produce_any(const LinearOp& op, Place at, int steps, Ring<B, N>& ring, bool first) {
  switch (op.w[at.part].format) {
    case kF32:
      if constexpr (B == 1) produce<kF32, B, N, kGlu>(op, at, steps, ring, first);  // else by_size chooses another tile
      return;
    case kF16: return produce_tiles<B, N, kGlu>(op, at, steps, ring, first);
    case kBF16: return produce<kBF16, B, N, kGlu>(op, at, steps, ring, first);
    case kQ4_0: return produce<kQ4_0, B, N, kGlu>(op, at, steps, ring, first);
    case kQ4_1: return produce<kQ4_1, B, N, kGlu>(op, at, steps, ring, first);
    case kQ5_0: return produce<kQ5_0, B, N, kGlu>(op, at, steps, ring, first);
    case kQ5_1: return produce<kQ5_1, B, N, kGlu>(op, at, steps, ring, first);
    case kQ8_0: return produce<kQ8_0, B, N, kGlu>(op, at, steps, ring, first);
    case kQ4_K: return produce<kQ4_K, B, N, kGlu>(op, at, steps, ring, first);
    case kQ5_K: return produce<kQ5_K, B, N, kGlu>(op, at, steps, ring, first);
    default: return produce<kQ6_K, B, N, kGlu>(op, at, steps, ring, first);
  }
}

template <int B, int N, bool kGlu>
__global__ __launch_bounds__(kBlock, 1) void half_gemm_kernel(const __grid_constant__ LinearOp op, int tiles) {
#ifdef PLUMB_WGMMA
  PLUMB_SHARED(uint8_t, shared);
  __shared__ TileBarrier full[kStages<B, N>], empty[kStages<B, N>];
  let_successor_start();
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages<B, N>; ++i) init(full[i], kGroup / 32 + 1), init(empty[i], 2 * kGroup / 32);
    publish_barriers();
  }
  __syncthreads();
  uint8_t* aligned = shared + (1024 - reinterpret_cast<uintptr_t>(shared) % 1024) % 1024;
  auto* stages = reinterpret_cast<Stage<B, N>*>(aligned);
  Ring<B, N> ring{stages, reinterpret_cast<uint4*>(stages + kStages<B, N>), full, empty};
  const int steps = (op.w[0].columns + kTileColumns - 1) / kTileColumns;
  if (threadIdx.x < 2 * kGroup) {
    give_registers<88>();
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x), ring.count += steps) {
      produce_any<B, N, kGlu>(op, place_of<B, N, kGlu>(op, tile), steps, ring, tile == int(blockIdx.x));
    }
  } else {
    take_registers<168>();
    wait_for_predecessor();
    const int group = int(threadIdx.x) / kGroup - 2;
    for (int tile = int(blockIdx.x); tile < tiles; tile += int(gridDim.x)) {
      float acc[B][N / 2];
      consume<B, N>(acc, group, steps, ring);
      const Place at = place_of<B, N, kGlu>(op, tile);
#pragma unroll
      for (int b = 0; b < B; ++b) write<N, kGlu>(op, at, at.token + (group * B + b) * 64, acc[b]);
    }
  }
#endif
}

template <int B, int N, bool kGlu>
int tiles_of(const LinearOp& op) {
  constexpr int kRows = kGlu ? N / 2 : N;
  int rows = 0;
  for (int i = 0; i < (kGlu ? 1 : op.parts); ++i) rows += (op.w[i].rows + kRows - 1) / kRows;
  return rows * ((op.n + B * kTileTokens - 1) / (B * kTileTokens));
}

template <int B, int N, bool kGlu>
const char* run(Context* c, const LinearOp& op) {
  const int tiles = tiles_of<B, N, kGlu>(op);
  const int shared = kStages<B, N> * int(sizeof(Stage<B, N>)) + kRingBytes<B> + 1024;
  const dim3 grid(unsigned(tiles < c->processors ? tiles : c->processors));
  return launch(c, half_gemm_kernel<B, N, kGlu>, grid, kBlock, shared, op, tiles);
}

template <bool kGlu>
const char* by_size(Context* c, const LinearOp& op) {
  // Time in units of the largest tile's; smaller ones are less efficient, but fill the device where there are few.
  const auto time = [&](int tiles, float each) { return float((tiles + c->processors - 1) / c->processors) * each; };
  bool f32 = false;  // whose weights on their way need more room
  for (int i = 0; i < op.parts; ++i) f32 |= op.w[i].format == kF32;
  const float large = f32 ? INFINITY : time(tiles_of<2, 128, kGlu>(op), 1.0f), middle = time(tiles_of<1, 128, kGlu>(op), 0.58f);
  const float small = time(tiles_of<1, 64, kGlu>(op), 0.36f);
  if (large <= middle && large <= small) return run<2, 128, kGlu>(c, op);
  return middle <= small ? run<1, 128, kGlu>(c, op) : run<1, 64, kGlu>(c, op);
}

}  // namespace

const char* half_gemm(Context* c, const LinearOp& op) {
  if (!c->warpgroups) return mma_gemm(c, op);
  return op.glu ? by_size<true>(c, op) : by_size<false>(c, op);
}

}  // namespace plumb::cuda
