// One token times quantised matrices, in the CPU's own order of addition (docs/numerics.md). A warp takes a row, its lanes the
// row's units, and leaves pairs (a, b) in shared memory; then one lane per row adds fma(a, b, sum) over them in ascending order,
// while loads of the next rows are on their way. Every block normalises and rounds the activations itself, which spares a launch.
#include "cuda/exact.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kWarps = kThreads / 32;



// Shared memory: pairs of the rows in work, the row in f32 where it is normalised, then the rounded row.
struct Layout {
  int pairs_stride;  // float2 from one row's pairs to the next: 16 bytes times an odd number
  int floats, low, low2, scale, refined, end;
  __host__ __device__ Layout(int columns, int pairs, int rows, bool normalised, bool wide) {
    const int units = columns / 32;
    pairs_stride = pairs + 2;
    floats = rows * pairs_stride * int(sizeof(float2));
    low = floats + (normalised ? columns * 4 : 0);
    low2 = low + columns;
    scale = wide ? low2 + columns : low2;
    refined = scale + units * int(sizeof(BlockScale));
    end = refined + (wide ? 0 : (units + 3) / 4 * int(sizeof(Refined)));
  }
};

// Where round_window writes a window of the row.
struct SharedOut {
  uint32_t *low, *low2;  // [2][units][4]: elements 0..15 and 16..31 of each unit
  BlockScale* scales;
  Refined* window;
  int units, first;  // first: window
  __device__ void codes(int lane, uint32_t h, uint32_t l) {
    const int at = (first * 4 + lane / 8 + (lane / 4 % 2) * units) * 4 + lane % 4;
    low[at] = h;
    if (low2) low2[at] = l;
  }
  __device__ void scale(int block, const BlockScale& b) { scales[first * 4 + block] = b; }
  __device__ void refined(const Refined& r) { window[first] = r; }
};

template <bool kWide>
__device__ Activation prepare(const LinearOp& op, const Layout& at, uint8_t* shared, float* parts) {
  const int n = op.w[0].columns, units = n / 32, lane = int(threadIdx.x) % 32;
  float* x = reinterpret_cast<float*>(shared + at.floats);
  float factor = 1;
  if (op.norm) {
    for (int i = int(threadIdx.x) * 4; i < n; i += kThreads * 4) {
      *reinterpret_cast<float4*>(x + i) = __ldcg(reinterpret_cast<const float4*>(op.x + i));
    }
    __syncthreads();
    factor = norm_factor(block_squares(x, n, parts), n, op.eps);
  }
  SharedOut out{reinterpret_cast<uint32_t*>(shared + at.low), kWide ? reinterpret_cast<uint32_t*>(shared + at.low2) : nullptr,
                reinterpret_cast<BlockScale*>(shared + at.scale), reinterpret_cast<Refined*>(shared + at.refined), units, 0};
  const bool refine = op.rounding == 1;
#pragma unroll 2
  for (int w = int(threadIdx.x) / 32; w < (units + 3) / 4; w += kWarps) {
    const int column = w * kWindow + lane * 4;
    float4 v = {0, 0, 0, 0};
    if (column < n && !op.norm) v = __ldcg(reinterpret_cast<const float4*>(op.x + column));
    if (column < n && op.norm) {
      const float4 g = __ldg(reinterpret_cast<const float4*>(op.norm + column));
      v = *reinterpret_cast<const float4*>(x + column);
      v = {v.x * factor * g.x, v.y * factor * g.y, v.z * factor * g.z, v.w * factor * g.w};
    }
    out.first = w;
    round_window<kWide>(v, column < n, refine, out);
  }
  __syncthreads();
  Activation a{};
  a.low = reinterpret_cast<const uint4*>(shared + at.low), a.high = a.low + units;
  a.low2 = reinterpret_cast<const uint4*>(shared + at.low2), a.high2 = a.low2 + units;
  a.scale = out.scales, a.refined = refine ? out.window : nullptr;
  return a;
}

struct Row {
  int part, row;
};

template <int R>
__device__ Row row_of(const LinearOp& op, int r) {
  Row at{0, r};
  if (R == 1) {
    while (at.part + 1 < op.parts && at.row >= op.w[at.part].rows) at.row -= op.w[at.part++].rows;
  }
  return at;
}

/// What follows a row's sum: bias, the other row of a gated unit, residual. All lanes of the warp call it.
template <int R>
__device__ void finish(const LinearOp& op, int row, bool valid, float acc) {
  const Row at = row_of<R>(op, valid ? row : 0);
  const float* bias = op.bias[R == 2 ? int(threadIdx.x) % 2 : at.part];
  if (bias) acc += bias[at.row];
  if constexpr (R == 2) {
    const float up = __shfl_xor_sync(~0u, acc, 1);
    acc = activate(op.glu, acc) * up;
    valid = valid && threadIdx.x % 2 == 0;
  }
  if (!valid) return;
  if (op.residual) acc = __ldcg(op.residual + at.row) + acc;
  op.y[at.part][at.row] = acc;
}

/// sum = fma(a, b, sum) over n pairs.
__device__ float chain(const float2* pairs, int n, float sum) {
  const float4* two = reinterpret_cast<const float4*>(pairs);
#pragma unroll 8
  for (int i = 0; i < n / 2; ++i) {
    const float4 p = two[i];
    sum = fmaf(p.z, p.w, fmaf(p.x, p.y, sum));
  }
  return n % 2 ? fmaf(pairs[n - 1].x, pairs[n - 1].y, sum) : sum;
}

// R = 1: a row of one of the parts; R = 2: row r of gate and of up together. J: units in flight of each.
template <int F, int R, int J, bool kWide>
struct Work {
  using U = Unit<F>;
  static constexpr int kSpan = 32 * J, kMost = kSpan * U::kPairs + (kWide ? 0 : kSpan / 4 * U::kRefinedPairs);
  const LinearOp& op;
  int rows, units, warp, lane;
  U w[R][J];

  __device__ void load(int batch, int base, int j) {
    const int row = batch * kWarps + warp, u = base + 32 * j + lane;
    if (row >= rows || u >= units) return;
    const Row at = row_of<R>(op, row);
#pragma unroll
    for (int r = 0; r < R; ++r) w[r][j].load(op.w[R == 2 ? r : at.part], int64_t(at.row) * units + u);
  }
  __device__ void multiply(const Activation& a, int base, int j, float2* pairs, int stride) {
    const int u = base + 32 * j + lane, in_window = (kWide || !a.refined) ? 0 : U::kRefinedPairs;
    if (u >= units) return;
    const int window = (u - base) / 4 * (4 * U::kPairs + in_window), left = units - u / 4 * 4;
    const int at = window + u % 4 * U::kPairs, refined = window + (left < 4 ? left : 4) * U::kPairs;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      float2* row = pairs + (warp * R + r) * stride;
      w[r][j].template multiply<kWide>(a, u, row + at, row + refined);
    }
  }
};

template <int F, int R, int J, bool kWide>
__global__ __launch_bounds__(kThreads, 2) void codes_kernel(const __grid_constant__ LinearOp op, int rows) {
  PLUMB_SHARED(uint8_t, shared);
  __shared__ float parts[64], sums[kWarps * R];
  using W = Work<F, R, J, kWide>;
  const int columns = op.w[0].columns;
  const Layout layout(columns, W::kMost, kWarps * R, op.norm != nullptr, kWide);
  W work{op, rows, columns / 32, int(threadIdx.x) / 32, int(threadIdx.x) % 32, {}};
  let_successor_start();
#pragma unroll
  for (int j = 0; j < J; ++j) work.load(int(blockIdx.x), 0, j);
  wait_for_predecessor();
  const Activation a = prepare<kWide>(op, layout, shared, parts);
  float2* pairs = reinterpret_cast<float2*>(shared);
  const int refined_pairs = a.refined ? W::U::kRefinedPairs : 0;
  for (int batch = int(blockIdx.x); batch * kWarps < rows; batch += int(gridDim.x)) {
    for (int base = 0; base < work.units; base += W::kSpan) {
      const bool last = base + W::kSpan >= work.units;
      const int next_batch = last ? batch + int(gridDim.x) : batch, next_base = last ? 0 : base + W::kSpan;
#pragma unroll
      for (int j = 0; j < J; ++j) {
        work.multiply(a, base, j, pairs, layout.pairs_stride);
        work.load(next_batch, next_base, j);
      }
      __syncthreads();
      if (work.warp == 0) {
        const int n = last ? work.units - base : W::kSpan, i = work.lane % (kWarps * R), row = batch * kWarps + i / R;
        const float before = base == 0 ? 0.0f : sums[i];
        const float sum = chain(pairs + i * layout.pairs_stride, n * W::U::kPairs + (n + 3) / 4 * refined_pairs, before);
        if (last) {
          finish<R>(op, row, row < rows && work.lane < kWarps * R, sum);
        } else if (work.lane < kWarps * R) {
          sums[i] = sum;
        }
      }
      __syncthreads();
    }
  }
}

template <int F, int R, int J, bool kWide>
const char* run(Context* c, const LinearOp& op) {
  int rows = op.w[0].rows;
  for (int i = 1; R == 1 && i < op.parts; ++i) rows += op.w[i].rows;
  const int blocks = (rows + kWarps - 1) / kWarps, most = 2 * c->processors;
  const Layout layout(op.w[0].columns, Work<F, R, J, kWide>::kMost, kWarps * R, op.norm != nullptr, kWide);
  return launch(c, codes_kernel<F, R, J, kWide>, dim3(unsigned(blocks < most ? blocks : most)), kThreads, layout.end, op, rows);
}

}  // namespace

const char* linear(Context* c, const LinearOp& op) {
  const bool codes = quantised(op.w[0].format);
  if (!codes) return op.n > 1 ? float_gemm(c, op) : float_linear(c, op);
  if (op.n > 1) return code_gemm(c, op);
  const char* error = nullptr;
  with_code_format(op.w[0].format, [&](auto f) {
    constexpr int F = f.value;
    if (op.rounding == 2) {
      error = op.glu ? run<F, 2, 2, true>(c, op) : run<F, 1, 4, true>(c, op);
    } else {
      error = op.glu ? run<F, 2, 2, false>(c, op) : run<F, 1, 4, false>(c, op);
    }
  });
  return error;
}

}  // namespace plumb::cuda
