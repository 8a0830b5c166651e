// Tiles of halves in shared memory, 64 columns wide, as Hopper's tensor cores read them: rows of 128 bytes whose 16-byte pieces
// are permuted by the row. With them the barriers that count copied bytes, bulk copies, and the multiplication of whole tiles by a
// group of four warps (PTX manual, 9.7.13.15 and 9.7.15).
#pragma once

#include "cuda/tensor.cuh"

namespace plumb::cuda {

constexpr int kTileColumns = 64, kTileRowBytes = 128;

/// Bytes from the start of a tile to piece `piece` (8 halves) of a row.
__host__ __device__ constexpr int tile_offset(int row, int piece) { return row * kTileRowBytes + ((piece ^ (row & 7)) << 4); }

}  // namespace plumb::cuda

#ifdef PLUMB_CUDA_ON_CPU
#include "cuda/on_cpu/tile.h"
#else

namespace plumb::cuda {

using TileBarrier = uint64_t;

__device__ inline void init(TileBarrier& b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&b)), "r"(arrivals) : "memory");
}
/// Makes initialised barriers known to the copy engine.
__device__ inline void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ inline void arrive(TileBarrier& b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&b)) : "memory");
}
/// Arrives, and lets the barrier's phase wait for that many copied bytes.
__device__ inline void arrive_for(TileBarrier& b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&b)), "r"(bytes) : "memory");
}
/// Arrives once all copies that this thread has started (tensor.cuh) are done.
__device__ inline void arrive_when_copied(TileBarrier& b) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&b)) : "memory");
}
/// Until the phase of that parity is over.
__device__ inline void wait(TileBarrier& b, int parity) {
  uint32_t over = 0;
  while (!over) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(over) : "r"(shared_address(&b)), "r"(parity) : "memory");
#else
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(over) : "r"(shared_address(&b)), "r"(parity) : "memory");
#endif
  }
}
/// Starts a copy of 16 n bytes that the barrier counts.
__device__ inline void copy_bulk(void* to, const void* from, int bytes, TileBarrier& b) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(&b)) : "memory");
}
/// A value that all of a warp have, for what wants one register for all.
__device__ inline int of_warp(int v) { return __shfl_sync(~0u, v, 0); }
/// Between a thread's stores to shared memory and the barrier behind which tensor cores read them.
__device__ inline void publish_stores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PLUMB_WGMMA
/// Moves registers between groups of four warps; the number is what each thread of the group has from then on.
template <int Registers>
__device__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
__device__ inline uint64_t tile_descriptor(const void* tile) {
  return uint64_t((shared_address(tile) & 0x3ffffu) >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
}
/// The same of tiles of which columns become columns of the product: their 8 rows are 1,024 bytes apart, their 64 columns a tile.
__device__ inline uint64_t columns_descriptor(const void* tile) {
  constexpr uint64_t kApart = uint64_t(64 * kTileRowBytes >> 4) << 16 | uint64_t(64) << 32;
  return uint64_t((shared_address(tile) & 0x3ffffu) >> 4) | kApart | uint64_t(1) << 62;
}

#include "cuda/wgmma.inc"

/// Around a group of multiplications.
__device__ inline void start_tiles() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void commit_tiles() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Starts d [64][N] (+)= a [64][64] b [N][64]; N = 2 R. Sums begin at zero unless `more`.
template <int R>
__device__ void multiply_tiles(float (&d)[R], const uint8_t* a, const uint8_t* b, bool more) {
  const uint64_t at_a = tile_descriptor(a), at_b = tile_descriptor(b);
#pragma unroll
  for (int k = 0; k < 4; ++k) multiply_k16(d, at_a + 2 * k, at_b + 2 * k, more || k > 0);
}
/// Starts d [64][N] += a [64][64] b [64][N]: a in registers, 16 columns at a time as an operand of `mma`; of b, N / 64 tiles of 64
/// rows by 64 columns one behind the other. Until it is done a and d may not be touched.
template <int R>
__device__ void multiply_columns(float (&d)[R], const uint32_t (&a)[4][4], const uint8_t* b) {
  const uint64_t at = columns_descriptor(b);
#pragma unroll
  for (int k = 0; k < 4; ++k) multiply_columns_k16(d, a[k], at + k * (16 * kTileRowBytes >> 4));
}
/// Until all but the last `Pending` groups of multiplications are done.
template <int Pending>
__device__ void wait_for_tiles() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}
/// Behind a wait: no use of these sums moves before it.
template <int R>
__device__ void hold(float (&d)[R]) {
#pragma unroll
  for (int i = 0; i < R; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
#endif

}  // namespace plumb::cuda
#endif
