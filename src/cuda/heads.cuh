// One head of a token by one warp: optional norm, optional rotation. Shared by the kernel for heads and by attention. And the run
// of tokens that a block of attention works at, and whether it ends last.
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

/// The same of up to H heads side by side, of which `heads` are there; put(element from the first head on, value).
template <int H, class Put>
__device__ void turn_heads(const HeadsOp::Part& op, const float* x, int heads, int64_t pos, Put put) {
  if (op.norm) {
    for (int h = 0; h < min(H, heads); ++h) turn_head(op, x + h * op.dim, pos, [&](int i, float v) { put(h * op.dim + i, v); });
    return;
  }
  const int lane = int(threadIdx.x) % 32, dims = op.table ? op.dims : 0, half = dims / 2;
  const float* table = op.table + pos * op.dims;
  for (int i = lane; i < half; i += 32) {
    const int a = op.pairs ? 2 * i : i, b = op.pairs ? 2 * i + 1 : i + half;
    const float c = table[i], s = table[half + i];
    float xa[H], xb[H];
#pragma unroll
    for (int h = 0; h < H; ++h) {
      if (h < heads) xa[h] = x[h * op.dim + a], xb[h] = x[h * op.dim + b];
    }
#pragma unroll
    for (int h = 0; h < H; ++h) {
      if (h >= heads) continue;
      put(h * op.dim + a, fmaf(xa[h], c, -(xb[h] * s)));
      put(h * op.dim + b, fmaf(xa[h], s, xb[h] * c));
    }
  }
  for (int i = dims + lane; i < op.dim; i += 32) {
    float v[H];
#pragma unroll
    for (int h = 0; h < H; ++h) {
      if (h < heads) v[h] = x[h * op.dim + i];
    }
#pragma unroll
    for (int h = 0; h < H; ++h) {
      if (h < heads) put(h * op.dim + i, v[h]);
    }
  }
}

/// The operation of run `i` alone: its tokens from 0 on.
__device__ inline AttentionOp run_of(const AttentionOp& all, int i) {
  AttentionOp op = all;
  const int first = all.runs[i];
  op.q += first * op.q_stride, op.out += first * op.out_stride, op.positions += first;
  op.n = all.runs[all.runs_apart + i];
  op.pages.tables = table_of(all.pages, first);
  return op;
}

/// Whether this block is the last of its token and heads; then all others' chunks can be read.
__device__ inline bool arrived_last(const AttentionOp& op, int t, int others) {
  __shared__ bool is_last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {  // counts blocks, never values; wraps to zero for the next call
    is_last = atomicInc(op.counter + int64_t(t) * gridDim.x + blockIdx.x, unsigned(others)) == unsigned(others);
  }
  __syncthreads();
  __threadfence();
  return is_last;
}

}  // namespace plumb::cuda
