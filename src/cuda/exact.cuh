// The operations of docs/numerics.md that are more than one instruction, in the order of the CPU's kernels (cpu/simd/math.h), so
// that both give the same bits: e^x, the activations, sums in their fixed trees.
#pragma once

#include "cuda/device.cuh"

namespace plumb::cuda {

/// e^x for x <= 0; 0 below -86. NaN stays NaN, which the bits of the device's own would not.
__device__ inline float exp_negative(float x) {
  constexpr float kMagic = 0x1.8p23f;
  const float t = fmaf(x, 0x1.715476p0f, kMagic), n = t - kMagic;
  const float r = fmaf(n, -0x1.7f7d1cp-20f, fmaf(n, -0x1.62e4p-1f, x));
  float p = fmaf(1 / 720.0f, r, 1 / 120.0f);
  p = fmaf(p, r, 1 / 24.0f), p = fmaf(p, r, 1 / 6.0f), p = fmaf(p, r, 0.5f), p = fmaf(p, r, 1.0f), p = fmaf(p, r, 1.0f);
  const float y = __uint_as_float(__float_as_uint(p) + (__float_as_uint(t) << 23));
  return x >= -86.0f ? y : x < -86.0f ? 0.0f : x;
}

__device__ inline float sigmoid(float x) {
  const float e = exp_negative(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/// act: 1 SiLU, 2 GELU in its tanh form.
__device__ inline float activate(int act, float x) {
  if (act == 1) return x * sigmoid(x);
  const float cubic = fmaf(x * x * 0.044715f, x, x);
  return x * sigmoid(cubic * 1.5957691216057308f);
}

/// Of 2 w values, lane l of a warp holding l mod w and l mod w + w: sums j + w, then + w / 2, ... to 1.
__device__ inline float tree(float low, float high, int w) {
  float v = low + high;
  for (int o = w / 2; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
  return v;
}

/// Sum of squares of n elements in 64 partial sums and their tree, by a warp.
__device__ inline float warp_squares(const float* x, int n) {
  const int lane = int(threadIdx.x) % 32;
  float low = 0, high = 0;
  for (int i = lane; i < n; i += 64) {
    low = fmaf(x[i], x[i], low);
    if (i + 32 < n) high = fmaf(x[i + 32], x[i + 32], high);
  }
  return tree(low, high, 32);
}

/// The same by a block, x in shared memory, where `parts` [64] is too. Every thread gets it.
__device__ inline float block_squares(const float* x, int n, float* parts) {
  const int j = int(threadIdx.x);
  if (j < 64) {
    float v = 0;
#pragma unroll 8
    for (int i = j; i < n; i += 64) v = fmaf(x[i], x[i], v);
    parts[j] = v;
  }
  __syncthreads();
  return tree(parts[j % 32], parts[j % 32 + 32], 32);
}

/// What a norm multiplies with before its weights.
__device__ inline float norm_factor(float squares, int n, float eps) { return 1.0f / sqrtf(squares / float(n) + eps); }

}  // namespace plumb::cuda
