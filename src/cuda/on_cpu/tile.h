// The instructions of tile.cuh for on_cpu/cuda_runtime.h. Copies and multiplications are done when they
// start.
#pragma once

#include "cuda/on_cpu/cuda_fp16.h"

#define PLUMB_WGMMA

namespace plumb::cuda {

struct TileBarrier {
  int arrivals, left, phase;
};

inline void init(TileBarrier& b, int arrivals) { b = {arrivals, arrivals, 0}; }
inline void publish_barriers() {}
inline void arrive(TileBarrier& b) {
  if (--b.left == 0) b.left = b.arrivals, ++b.phase;
}
inline void arrive_when_copied(TileBarrier& b) { arrive(b); }
inline void arrive_for(TileBarrier& b, int) { arrive(b); }
inline void wait(TileBarrier& b, int parity) {
  while (b.phase % 2 == parity) on_cpu::yield();
}
inline void copy_bulk(void* to, const void* from, int bytes, TileBarrier&) {
  std::memcpy(to, from, size_t(bytes));
}
inline int of_warp(int v) { return v; }
inline void publish_stores() {}
template <int Registers>
void give_registers() {}
template <int Registers>
void take_registers() {}

inline const std::vector<float> kHalfValues = [] {
  std::vector<float> all(1 << 16);
  for (size_t i = 0; i < all.size(); ++i) all[i] = half_to_float(uint16_t(i));
  return all;
}();
inline float tile_value(const uint8_t* tile, int row, int column) {
  uint16_t bits = 0;
  std::memcpy(&bits, tile + tile_offset(row, column / 8) + column % 8 * 2, 2);
  return kHalfValues[bits];
}

inline void start_tiles() {}
inline void commit_tiles() {}
template <int R>
void multiply_tiles(float (&d)[R], const uint8_t* a, const uint8_t* b, bool more) {
  const int thread = int(on_cpu::block.now % 128), warp = thread / 32, lane = thread % 32;
  for (int i = 0; i < R; ++i) {
    const int row = 16 * warp + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    if (!more) d[i] = 0;
    for (int k = 0; k < kTileColumns; ++k) {
      d[i] = std::fma(tile_value(a, row, k), tile_value(b, column, k), d[i]);
    }
  }
}
template <int R>
void multiply_columns(float (&d)[R], const uint32_t (&a)[4][4], const uint8_t* b) {
  const int lane = int(on_cpu::block.now % 32);
  for (int step = 0; step < 4; ++step) {
    const uint32_t(*all)[8] = on_cpu::exchange(a[step], sizeof(a[step]));
    for (int i = 0; i < R; ++i) {
      const int row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      const uint8_t* tile = b + column / kTileColumns * 64 * kTileRowBytes;
      for (int k = 0; k < 16; ++k) {
        const uint32_t word = all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
        d[i] = std::fma(kHalfValues[uint16_t(word >> 16 * (k % 2))],
                        tile_value(tile, 16 * step + k, column % kTileColumns), d[i]);
      }
    }
  }
}
template <int Pending>
void wait_for_tiles() {}
template <int R>
void hold(float (&)[R]) {}

}  // namespace plumb::cuda
