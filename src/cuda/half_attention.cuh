// What both kernels for attention of many tokens in halves share: rows (token by token, the query heads of one kv head together), of
// which a thread has two as a tensor core's sums lie, the keys that they see, and how scores of 64 keys become weights.
#pragma once

#include "cuda/half.cuh"
#include "cuda/heads.cuh"

namespace plumb::cuda {

constexpr int kAttentionKeys = 64;
constexpr float kLog2e = 0x1.715476p0f;

struct AttentionRows {  // of a thread in its warp's tile: 0 and 8 behind the first
  int t[2], head[2], first[2], last[2];  // token, query head, keys first <= key < last
};

__device__ inline AttentionRows attention_rows(const AttentionOp& op, int group, int kv_head, int row) {
  AttentionRows r;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int at = row + 8 * i;
    r.t[i] = at / group, r.head[i] = kv_head * group + at % group;
    const int pos = op.positions[min(r.t[i], op.n - 1)];
    r.first[i] = op.window > 0 && pos >= op.window ? pos - op.window + 1 : 0, r.last[i] = pos + 1;
  }
  return r;
}

/// Which keys some rows see, from a tile's first on.
struct AttentionSpan {
  int begin, last;
  __device__ AttentionSpan(const AttentionOp& op, int group, int first_row, int rows) {
    const int lowest = op.positions[first_row / group];
    last = op.positions[min((first_row + rows - 1) / group, op.n - 1)] + 1;
    begin = (op.window > 0 && lowest >= op.window ? lowest - op.window + 1 : 0) / kAttentionKeys * kAttentionKeys;
  }
  __device__ int tiles() const { return (last - begin + kAttentionKeys - 1) / kAttentionKeys; }
};

// What a thread knows of its two rows.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // sum: over the thread's own keys

  /// Scores (4 n + e: key 8 n + lane % 4 * 2 + e % 2 of row e / 2) to weights 2^(scale (s - largest)); `old` is what brings to the
  /// new maximum what came before.
  __device__ void soften(float (&s)[kAttentionKeys / 2], const AttentionRows& rows, int start, float scale, float (&old)[2]) {
    mask(s, rows, start);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = largest[i];
#pragma unroll
      for (int n = 0; n < 8; ++n) top = fmaxf(top, fmaxf(s[4 * n + 2 * i], s[4 * n + 2 * i + 1]));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
      top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
      old[i] = top == largest[i] ? 1.0f : exp2_fast((largest[i] - top) * scale);  // exactly 1 where nothing changes
      largest[i] = top;
      const float base = top == -INFINITY ? 0.0f : top * scale;
      float added = 0;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[4 * n + 2 * i + e];
          x = exp2_fast(fmaf(x, scale, -base)), added += x;
        }
      }
      sum[i] = sum[i] * old[i] + added;
    }
  }

  __device__ static void mask(float (&s)[kAttentionKeys / 2], const AttentionRows& rows, int start) {
    const int lane = int(threadIdx.x) % 32;
    const auto whole = [&](int i) { return rows.first[i] <= start && start + kAttentionKeys <= rows.last[i]; };
    if (__ballot_sync(~0u, !whole(0) || !whole(1)) == 0) return;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = start + 8 * n + lane % 4 * 2 + e % 2;
        if (key < rows.first[e / 2] || key >= rows.last[e / 2]) s[4 * n + e] = -INFINITY;
      }
    }
  }

  /// Weights as halves, 16 keys at a time, as a tensor core's first operand.
  __device__ static void pack(const float (&s)[kAttentionKeys / 2], uint32_t (&a)[kAttentionKeys / 16][4]) {
#pragma unroll
    for (int k = 0; k < kAttentionKeys / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 4 * (2 * k + i / 2) + i % 2 * 2;
        a[k][i] = bits(__floats2half2_rn(s[at], s[at + 1]));
      }
    }
  }

  /// What the sums of values by weights are multiplied with at the end, of row i.
  __device__ float inverse(int i) const {
    float all = sum[i] + __shfl_xor_sync(~0u, sum[i], 1);
    all += __shfl_xor_sync(~0u, all, 2);
    return 1.0f / all;
  }
};

/// Brings sums of columns 8 n + lane % 4 * 2, o[4 n ..], to a new maximum.
template <int R>
__device__ void rescale(float (&o)[R], const float (&old)[2]) {
#pragma unroll
  for (int i = 0; i < R; ++i) o[i] *= old[i / 2 % 2];
}

/// Whether no row of the warp has a new maximum.
__device__ inline bool all_kept(const float (&old)[2]) { return __ballot_sync(~0u, old[0] != 1.0f || old[1] != 1.0f) == 0; }

/// Writes columns d = 8 n + lane % 4 * 2 and the next of both rows.
template <int R>
__device__ void write_rows(const AttentionOp& op, const AttentionRows& rows, const float (&o)[R], const float (&inverse)[2]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (rows.t[i] >= op.n) continue;
    float* to = op.out + rows.t[i] * op.out_stride + rows.head[i] * op.dim;
#pragma unroll
    for (int n = 0; n < R / 4; ++n) {
      const int d = 8 * n + lane % 4 * 2;
      if (d < op.dim) *reinterpret_cast<float2*>(to + d) = {o[4 * n + 2 * i] * inverse[i], o[4 * n + 2 * i + 1] * inverse[i]};
    }
  }
}

}  // namespace plumb::cuda
