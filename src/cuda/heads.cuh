// One head of a token by one warp: optional norm, optional rotation. Shared by the kernel for heads and by attention.
#pragma once

#include "cuda/exact.cuh"

namespace plumb::cuda {

/// Calls put(element, value) for every element of the head at x.
template <class Put>
__device__ void turn_head(const HeadsOp::Part& op, const float* x, int64_t pos, Put put) {
  const int lane = int(threadIdx.x) % 32;
  const float r = op.norm ? norm_factor(warp_squares(x, op.dim), op.dim, op.eps) : 1.0f;
  const auto element = [&](int i) { return op.norm ? x[i] * r * op.norm[i] : x[i]; };
  const int dims = op.table ? op.dims : 0, half = dims / 2;
  const float* table = op.table + pos * op.dims;
  for (int i = lane; i < half; i += 32) {
    const int a = op.pairs ? 2 * i : i, b = op.pairs ? 2 * i + 1 : i + half;
    const float xa = element(a), xb = element(b), c = table[i], s = table[half + i];
    put(a, fmaf(xa, c, -(xb * s)));
    put(b, fmaf(xa, s, xb * c));
  }
  for (int i = dims + lane; i < op.dim; i += 32) put(i, element(i));
}

}  // namespace plumb::cuda
