// The instructions of tensor.cuh for on_cpu/cuda_runtime.h, by the layouts of the PTX manual (9.7.14,
// mma.m16n8k16 and ldmatrix).
#pragma once

#include "cuda/on_cpu/cuda_fp16.h"

namespace plumb::cuda {

inline void copy16(void* to, const void* from, bool valid) {
  std::memset(to, 0, 16);
  if (valid) std::memcpy(to, from, 16);
}
inline void copy8(void* to, const void* from, bool valid) {
  std::memset(to, 0, 8);
  if (valid) std::memcpy(to, from, 8);
}
inline void copy4(void* to, const void* from, bool valid) {
  std::memset(to, 0, 4);
  if (valid) std::memcpy(to, from, 4);
}
inline void commit_copies() {}
template <int Pending = 0>
void wait_for_copies() {}

inline void load_matrices(uint32_t* r, const void* p) {
  const uint32_t(*all)[8] = on_cpu::exchange(&p, sizeof(p));
  const size_t lane = on_cpu::block.now % 32;
  for (size_t m = 0; m < 4; ++m) {
    const uint8_t* row = nullptr;
    std::memcpy(&row, all[8 * m + lane / 4], sizeof(row));
    std::memcpy(&r[m], row + lane % 4 * 4, 4);
  }
}

inline void load_matrices_transposed(uint32_t* r, const __half* p) {
  const uint32_t(*all)[8] = on_cpu::exchange(&p, sizeof(p));
  const size_t lane = on_cpu::block.now % 32;
  for (size_t m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (size_t i = 0; i < 2; ++i) {
      const __half* row = nullptr;
      std::memcpy(&row, all[8 * m + lane % 4 * 2 + i], sizeof(row));
      std::memcpy(&pair[i], row + lane / 4, 2);
    }
    std::memcpy(&r[m], pair, 4);
  }
}

inline void multiply(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const uint32_t(*all)[8] = on_cpu::exchange(mine, sizeof(mine));
  const int lane = int(on_cpu::block.now % 32);
  const auto half_of = [](uint32_t word, int i) { return half_to_float(uint16_t(word >> 16 * i)); };
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const int of = k % 8 / 2, a_word = row / 8 + k / 8 * 2;
      const float x = half_of(all[row % 8 * 4 + of][a_word], k % 2),
                  y = half_of(all[column * 4 + of][4 + k / 8], k % 2);
      d[i] = std::fma(x, y, d[i]);
    }
  }
}

/// d += a [16][16 K] b [16 K][8] of int8; `mine` holds a's 2 K words and b's K.
template <int K>
void multiply_int8(int* d, const uint32_t* mine) {
  const uint32_t(*all)[8] = on_cpu::exchange(mine, sizeof(uint32_t) * 3 * K);
  const int lane = int(on_cpu::block.now % 32);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16 * K; ++k) {
      const int of = k % 16 / 4, shift = k % 4 * 8;
      d[i] += int(int8_t(all[row % 8 * 4 + of][row / 8 + k / 16 * 2] >> shift)) *
              int(int8_t(all[column * 4 + of][2 * K + k / 16] >> shift));
    }
  }
}
inline void multiply_codes(int* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  const uint32_t mine[] = {a[0], a[1], a[2], a[3], b0, b1};
  multiply_int8<2>(d, mine);
}
inline void multiply_codes_16(int* d, const uint32_t* a, uint32_t b) {
  const uint32_t mine[] = {a[0], a[1], b};
  multiply_int8<1>(d, mine);
}

}  // namespace plumb::cuda
