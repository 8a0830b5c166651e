// A few tokens times quantised matrices where sums need not be in the CPU's order (docs/numerics.md, `--act f16`): a block takes 16
// rows, a warp adds up its own segments of columns, and warps are added in ascending order.
#include "cuda/few.cuh"

namespace plumb::cuda {
namespace {

using namespace few;

/// 16 rows of a part (R = 2: of gate and of up) from first_row on.
template <int F, int R, int T>
__device__ void own_rows(const LinearOp& op, int part, int first_row, int octet, float4 (*parts)[R * T][32]) {
  constexpr int S = kSegment<R, T, kWide>;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, units = op.w[0].columns / 32;
  Weights<F, S> from[2] = {{op.w[part], first_row + lane / 4, warp * S}, {op.w[R == 2 ? 1 : part], first_row + lane / 4, warp * S}};
  Piece<F, S> next[R];
#pragma unroll
  for (int r = 0; r < R; ++r) from[r].load(units - warp * S, next[r]);
  wait_for_predecessor();
  Tokens<S, true> tokens(op, octet, warp * S);
  Segment<S, T> next_x;
  next_x.load(tokens, units - warp * S);
  float sums[R][T][4] = {};
  for (int left = units - warp * S; left > 0; left -= kFewWarps * S) {
    Piece<F, S> w[R];
    const Segment<S, T> x = next_x;
#pragma unroll
    for (int r = 0; r < R; ++r) w[r] = next[r], from[r].load(left - kFewWarps * S, next[r]);
    next_x.load(tokens, left - kFewWarps * S);
#pragma unroll
    for (int k = 0; k < S; ++k) {
      if (k >= left) break;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        uint32_t a[4];
        w[r].codes(k, a);
        const float2 ws[2] = {w[r].scales(k, 0, (warp * S + k) % 8), w[r].scales(k, 1, (warp * S + k) % 8)};
#pragma unroll
        for (int t = 0; t < T; ++t) {
          const float4 s = x.scales[k][t];
          int c[2][4] = {};
          multiply_unit<F, kWide>(a, x.codes[k][t], c);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float y = float(c[0][i]) * ws[i / 2].x;
            if constexpr (F == kQ6_K) y = fmaf(float(c[1][i]), ws[i / 2].y, y);
            sums[r][t][i] = fmaf(y, i % 2 ? s.z : s.x, sums[r][t][i]);
            if constexpr (Unit<F>::kMin) sums[r][t][i] = fmaf(ws[i / 2].y, i % 2 ? s.w : s.y, sums[r][t][i]);
          }
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < R * T; ++i) {
    const float* mine = sums[i / T][i % T];
    parts[warp][i][lane] = {mine[0], mine[1], mine[2], mine[3]};
  }
  __syncthreads();
  if (warp >= T) return;
  Sums all[2] = {};
#pragma unroll
  for (int r = 0; r < R; ++r) {
    for (int w = 0; w < kFewWarps; ++w) {
      const float4 p = parts[w][r * T + warp][lane];
      all[r].of[0] += p.x, all[r].of[1] += p.y, all[r].of[2] += p.z, all[r].of[3] += p.w;
    }
  }
  finish<R>(op, part, first_row, octet + warp, {0, warp, 0, 2}, all[0], {all[1].of[0], all[1].of[1], all[1].of[2], all[1].of[3]});
}

template <int R, int T>
__global__ __launch_bounds__(32 * kFewWarps, 2) void own_kernel(const __grid_constant__ LinearOp op) {
  __shared__ float4 parts[kFewWarps][R * T][32];
  let_successor_start();
  const Place at = place_of<R, T>(op);
  switch (op.w[at.part].format) {
    case kQ4_0: return own_rows<kQ4_0, R, T>(op, at.part, at.row, at.octet, parts);
    case kQ4_1: return own_rows<kQ4_1, R, T>(op, at.part, at.row, at.octet, parts);
    case kQ5_0: return own_rows<kQ5_0, R, T>(op, at.part, at.row, at.octet, parts);
    case kQ5_1: return own_rows<kQ5_1, R, T>(op, at.part, at.row, at.octet, parts);
    case kQ8_0: return own_rows<kQ8_0, R, T>(op, at.part, at.row, at.octet, parts);
    case kQ4_K: return own_rows<kQ4_K, R, T>(op, at.part, at.row, at.octet, parts);
    case kQ5_K: return own_rows<kQ5_K, R, T>(op, at.part, at.row, at.octet, parts);
    default: return own_rows<kQ6_K, R, T>(op, at.part, at.row, at.octet, parts);
  }
}

template <int R, int T>
const char* run_own(Context* c, const LinearOp& op) {
  return launch(c, own_kernel<R, T>, grid_of<R, T>(op), 32 * kFewWarps, 0, op);
}

}  // namespace

const char* few_own_linear(Context* c, const LinearOp& op) {
  if (op.glu) return op.n <= 8 ? run_own<2, 1>(c, op) : run_own<2, 2>(c, op);
  return op.n <= 8 ? run_own<1, 1>(c, op) : run_own<1, 2>(c, op);
}

}  // namespace plumb::cuda
