// The instructions of tensor.cuh for on_cpu/cuda_runtime.h, by the layouts of the PTX manual (9.7.14,
// mma.m16n8k16 and ldmatrix).
#pragma once

#include "cuda/on_cpu/cuda_fp16.h"

namespace plumb::cuda {

inline void copy16(__half* to, const void* from, bool valid) {
  std::memset(static_cast<void*>(to), 0, 16);
  if (valid) std::memcpy(static_cast<void*>(to), from, 16);
}
inline void commit_copies() {}
inline void wait_for_copies() {}

inline void load_matrices(uint32_t* r, const __half* p) {
  const uint32_t(*all)[8] = on_cpu::exchange(&p, sizeof(p));
  const size_t lane = on_cpu::block.now % 32;
  for (size_t m = 0; m < 4; ++m) {
    const __half* row = nullptr;
    std::memcpy(&row, all[8 * m + lane / 4], sizeof(row));
    std::memcpy(&r[m], row + lane % 4 * 2, 4);
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

}  // namespace plumb::cuda
