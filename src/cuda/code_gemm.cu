// Many tokens times a quantised matrix: integer tensor cores over each block of 32 columns, whose sums are exact, and then the
// CPU's own chain of f32 operations (docs/numerics.md). An output depends neither on the tile nor on the tokens beside it, and
// equals what one token alone gets.
#include "cuda/device.cuh"
#include "cuda/tensor.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kM = 128, kN = 64, kBlock = 256;  // rows, tokens, threads
constexpr int kPitch = kWindow + 16;            // bytes: rows of a tile fall into different banks

struct Problem {
  Matrix w;
  Codes x;
  int rounding;
  const float* bias;
  const float* residual;  // [n, residual_stride]
  float* y;               // [n, y_stride]
  int64_t y_stride, residual_stride;
  int n;
};

// A window of 128 columns in shared memory.
template <bool kWide>
struct Stage {
  uint8_t weights[kM * kPitch], high[kN * kPitch], low[kWide ? kN * kPitch : 16];
  float2 of_weights[4][kM];  // scale and min, or (Q6_K) the scales of both halves
  float2 of_tokens[4][kN];   // s and s times the sum
  Refined refined[kWide ? 1 : kN];
};

// Two units of a row and window, in registers on their way to shared memory.
template <int F>
struct Piece {
  Unit<F> unit[2];
  __device__ void load(const Problem& p, int row, int first) {
    const int units = p.w.columns / 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (row < p.w.rows && first + i < units) unit[i].load(p.w, row, first + i);
    }
  }
  template <bool kWide>
  __device__ void store(const Problem& p, Stage<kWide>& to, int my_row, int row, int first) const {
    constexpr uint32_t kOffsets = uint32_t(Unit<F>::kOffset) * 0x01010101u;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int b = first % 4 + i;
      const bool inside = row < p.w.rows && first + i < p.w.columns / 32;
      uint4 out[2] = {};
      float2 scales = {0, 0};
      if (inside) {
#pragma unroll
        for (int w = 0; w < 8; ++w) {  // codes less their offset, byte by byte
          const uint32_t c = unit[i].codes(w);
          (&out[w / 4].x)[w % 4] = kOffsets == 0 ? c : ((c | 0x80808080u) - kOffsets) ^ 0x80808080u;
        }
        scales = unit[i].scale_min((first + i) % 8);
        if constexpr (F == kQ6_K) scales = {scales.x * float(unit[i].sub_scale(0)), scales.x * float(unit[i].sub_scale(1))};
      }
      uint4* at = reinterpret_cast<uint4*>(to.weights + my_row * kPitch + b * 32);
      at[0] = out[0], at[1] = out[1];
      to.of_weights[b][my_row] = scales;
    }
  }
};

template <bool kWide>
__device__ void load_tokens(const Problem& p, Stage<kWide>& to, int first_token, int window) {
  const int columns = p.w.columns, units = columns / 32;
#pragma unroll
  for (int j = 0; j < kN * 8 / kBlock; ++j) {
    const int i = int(threadIdx.x) + kBlock * j, t = i / 8, at = window * kWindow + i % 8 * 16;
    const bool valid = first_token + t < p.n && at < columns;
    const int64_t from = valid ? int64_t(first_token + t) * columns + at : 0;
    copy16(to.high + t * kPitch + i % 8 * 16, p.x.high + from, valid);
    if (kWide) copy16(to.low + t * kPitch + i % 8 * 16, p.x.low + from, valid);
  }
  {
    const int t = int(threadIdx.x) / 4, b = int(threadIdx.x) % 4, unit = window * 4 + b;
    const bool valid = first_token + t < p.n && unit < units;
    copy8(&to.of_tokens[b][t], p.x.scales + (valid ? (int64_t(first_token + t) * units + unit) * 2 : 0), valid);
  }
  if (!kWide && p.rounding == 1 && threadIdx.x < kN) {
    const int t = int(threadIdx.x), windows = (units + 3) / 4;
    const bool valid = first_token + t < p.n;
    copy16(&to.refined[t], static_cast<const Refined*>(p.x.refined) + (valid ? int64_t(first_token + t) * windows + window : 0), valid);
  }
  commit_copies();
}

// A warp's 32 rows x 32 tokens: 2 x 4 tiles of 16 x 8.
template <int F, bool kWide>
__device__ void multiply_block(float acc[2][4][4], const Stage<kWide>& s, int b, int row, int token) {
  const int lane = int(threadIdx.x) % 32;
  uint32_t fa[2][4], fb[2][4], fl[2][4];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    load_matrices(fa[i], s.weights + (row + 16 * i + lane % 16) * kPitch + b * 32 + lane / 16 * 16);
    const int at = (token + 16 * i + lane % 8 + lane / 16 * 8) * kPitch + b * 32 + lane / 8 % 2 * 16;
    load_matrices(fb[i], s.high + at);
    if (kWide) load_matrices(fl[i], s.low + at);
  }
  float2 w[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) w[i] = s.of_weights[b][row + 8 * i + lane / 4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const float4 x = *reinterpret_cast<const float4*>(&s.of_tokens[b][token + 8 * n + lane % 4 * 2]);
    const uint32_t *high = &fb[n / 2][n % 2 * 2], *low = &fl[n / 2][n % 2 * 2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      int c[2][4] = {};
      if constexpr (F == kQ6_K) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          multiply_codes_16(c[h], fa[m] + 2 * h, high[h]);
          if constexpr (kWide) {
#pragma unroll
            for (int i = 0; i < 4; ++i) c[h][i] *= 254;
            multiply_codes_16(c[h], fa[m] + 2 * h, low[h]);
          }
        }
      } else {
        multiply_codes(c[0], fa[m], high[0], high[1]);
        if constexpr (kWide) {
#pragma unroll
          for (int i = 0; i < 4; ++i) c[0][i] *= 254;
          multiply_codes(c[0], fa[m], low[0], low[1]);
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& a = acc[m][n][i];
        const float2 ws = w[2 * m + i / 2];
        const float xs = i % 2 ? x.z : x.x, xt = i % 2 ? x.w : x.y;
        a = fmaf(float(c[0][i]), ws.x * xs, a);
        if constexpr (F == kQ6_K) a = fmaf(float(c[1][i]), ws.y * xs, a);
        if constexpr (Unit<F>::kMin) a = fmaf(ws.y, xt, a);
      }
    }
  }
}

/// The refined columns of the window.
template <int F, bool kWide>
__device__ void multiply_refined(float acc[2][4][4], const Stage<kWide>& s, int row, int token) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const Refined r = s.refined[token + 8 * n + lane % 4 * 2 + j];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = row + 8 * i + lane / 4;
        const float2 ws = s.of_weights[r.at / 8][at];
        const int c = __dp4a(*reinterpret_cast<const int*>(s.weights + at * kPitch + r.at * 4), int(r.codes), 0);
        float& a = acc[i / 2][n][i % 2 * 2 + j];
        a = fmaf(float(c), (F == kQ6_K && r.at % 8 / 4 == 1 ? ws.y : ws.x) * r.s, a);
        if constexpr (Unit<F>::kMin) a = fmaf(ws.y, r.t, a);
      }
    }
  }
}

__device__ void write(const Problem& p, const float acc[2][4][4], int first_row, int first_token) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int t = first_token + 8 * n + lane % 4 * 2 + j;
      if (t >= p.n) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int r = first_row + 8 * i + lane / 4;
        if (r >= p.w.rows) continue;
        float y = acc[i / 2][n][i % 2 * 2 + j];
        if (p.bias) y += p.bias[r];
        if (p.residual) y = p.residual[t * p.residual_stride + r] + y;
        p.y[t * p.y_stride + r] = y;
      }
    }
  }
}

template <int F, bool kWide>
__global__ __launch_bounds__(kBlock, 2) void code_gemm_kernel(const __grid_constant__ Problem p) {
  PLUMB_SHARED(uint8_t, shared);
  Stage<kWide>* stages = reinterpret_cast<Stage<kWide>*>(shared);  // two
  const int row = int(blockIdx.y) * kM, token = int(blockIdx.x) * kN, warp = int(threadIdx.x) / 32;
  const int my_row = int(threadIdx.x) % kM, my_unit = int(threadIdx.x) / kM * 2;
  const int warp_row = warp % 4 * 32, warp_token = warp / 4 * 32, units = p.w.columns / 32;
  let_successor_start();
  Piece<F> piece;
  piece.load(p, row + my_row, my_unit);
  wait_for_predecessor();
  float acc[2][4][4] = {};
  load_tokens(p, stages[0], token, 0);
  piece.store(p, stages[0], my_row, row + my_row, my_unit);
  for (int first = 0; first < units; first += 4) {
    Stage<kWide>& now = stages[first / 4 % 2];
    Stage<kWide>& next = stages[(first / 4 + 1) % 2];
    wait_for_copies();
    __syncthreads();
    const bool more = first + 4 < units;
    if (more) {
      piece.load(p, row + my_row, first + 4 + my_unit);
      load_tokens(p, next, token, first / 4 + 1);
    }
#pragma unroll
    for (int b = 0; b < 4; ++b) {
      if (first + b < units) multiply_block<F, kWide>(acc, now, b, warp_row, warp_token);
    }
    if constexpr (!kWide) {
      if (p.rounding == 1) multiply_refined<F, kWide>(acc, now, warp_row, warp_token);
    }
    if (more) piece.store(p, next, my_row, row + my_row, first + 4 + my_unit);
  }
  write(p, acc, row + warp_row, token + warp_token);
}

template <int F, bool kWide>
const char* run(Context* c, const Problem& p) {
  const dim3 grid(unsigned((p.n + kN - 1) / kN), unsigned((p.w.rows + kM - 1) / kM));
  return launch(c, code_gemm_kernel<F, kWide>, grid, kBlock, int(2 * sizeof(Stage<kWide>)), p);
}

}  // namespace

const char* code_gemm(Context* c, const LinearOp& op) {
  const char* error = nullptr;
  for (int i = 0; i < op.parts && !error; ++i) {
    const Problem p{op.w[i], op.codes, op.rounding, op.bias[i], op.residual, op.y[i], op.y_stride[i], op.residual_stride, op.n};
    with_code_format(op.w[i].format, [&](auto f) {
      error = op.rounding == 2 ? run<f.value, true>(c, p) : run<f.value, false>(c, p);
    });
  }
  return error;
}

}  // namespace plumb::cuda
