// Rounding of activations to integers as the CPU rounds them (docs/numerics.md, cpu/quantise_impl.h), by a warp, a window of 128
// columns at a time: lane l holds columns 4 l to 4 l + 3.
#pragma once

#include "cuda/device.cuh"

namespace plumb::cuda {

struct BlockScale {  // of 32 activations
  float s;
  int low, high;  // sums of the codes of elements 0..15 and 16..31
  float t;        // s times the sum of all
};

struct Refined {  // four columns of a window
  int at;         // first of them, / 4
  uint32_t codes;
  float s, t;
};

constexpr int kWindow = 128;

__device__ inline uint32_t magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }
__device__ inline uint32_t pack(int a, int b, int c, int d) {
  return uint32_t(a & 255) | uint32_t(b & 255) << 8 | uint32_t(c & 255) << 16 | uint32_t(d) << 24;
}

/// s = RN(a / L) and r = RN(L / a) for a >= 2^-100: what the compiler makes of two divisions, without a branch and a look at the
/// operands for each.
template <int L>
__device__ void divide_both_ways(float a, float& s, float& r) {
#ifndef PLUMB_CUDA_ON_CPU
  if (a < 0x1p100f) {
    constexpr float kNear = 1.0f / L;
    const float of_most = fmaf(fmaf(kNear, -float(L), 1.0f), kNear, kNear), q = a * of_most;
    s = fmaf(of_most, fmaf(q, -float(L), a), q);
    float near;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(near) : "f"(a));
    const float inverse = fmaf(near, fmaf(-a, near, 1.0f), near), p = float(L) * inverse;
    r = fmaf(inverse, fmaf(-a, p, float(L)), p);
    return;
  }
#endif
  s = a / float(L), r = float(L) / a;
}

/// Rounds v, `inside` unless behind the last column. Out: codes(lane, high, low) for every lane, scale(block of the window,
/// BlockScale), refined(Refined). A value that is not finite makes its block's scale not finite.
template <bool kWide, class Out>
__device__ void round_window(float4 v, bool inside, bool refine, Out& out) {
  constexpr float kLeast = 0x1p-100f;
  constexpr int kMost = kWide ? 32384 : 127;
  const int lane = int(threadIdx.x) % 32;
  const uint32_t four = inside ? max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w))) : 0;
  uint32_t block = four;
  for (int o = 1; o < 8; o <<= 1) block = max(block, __shfl_xor_sync(~0u, block, o));
  float largest = __uint_as_float(block);
  if (!kWide && refine) {
    uint32_t top = max(block, __shfl_xor_sync(~0u, block, 8));
    top = max(top, __shfl_xor_sync(~0u, top, 16));
    const float most = __uint_as_float(top);
    const bool some = most >= kLeast;
    const int chosen = __ffs(int(__ballot_sync(~0u, four == top))) - 1;
    uint32_t rest = lane == chosen ? 0 : four;
    for (int o = 1; o < 8; o <<= 1) rest = max(rest, __shfl_xor_sync(~0u, rest, o));
    if (some && lane == chosen) {
      const float s = most / 127.0f, r = 127.0f / most;
      const int a = __float2int_rn(v.x * r), b = __float2int_rn(v.y * r), c = __float2int_rn(v.z * r), d = __float2int_rn(v.w * r);
      v = {fmaf(-s, float(a), v.x), fmaf(-s, float(b), v.y), fmaf(-s, float(c), v.z), fmaf(-s, float(d), v.w)};
      out.refined({lane, pack(a, b, c, d), s, s * float(a + b + c + d)});
    }
    if (some && lane / 8 == chosen / 8) largest = fmaxf(__uint_as_float(rest), most / 254.0f);
    if (!some && lane == 0) out.refined({0, 0, 0, 0});
  }
  float s = 0, r = 0;
  if (!(largest < kLeast)) divide_both_ways<kMost>(largest, s, r);
  const int a = __float2int_rn(v.x * r), b = __float2int_rn(v.y * r), c = __float2int_rn(v.z * r), d = __float2int_rn(v.w * r);
  int sum = a + b + c + d;
  for (int o = 1; o < 4; o <<= 1) sum += __shfl_xor_sync(~0u, sum, o);
  const int other = __shfl_xor_sync(~0u, sum, 4);
  if (!inside) return;
  if constexpr (kWide) {  // q = 254 high + low
    const auto high = [](int q) { return __float2int_rn(float(q) * (1.0f / 254)); };
    const int ha = high(a), hb = high(b), hc = high(c), hd = high(d);
    out.codes(lane, pack(ha, hb, hc, hd), pack(a - 254 * ha, b - 254 * hb, c - 254 * hc, d - 254 * hd));
  } else {
    out.codes(lane, pack(a, b, c, d), 0);
  }
  if (lane % 8 == 0) out.scale(lane / 8, {s, sum, other, s * float(sum + other)});
}

}  // namespace plumb::cuda
