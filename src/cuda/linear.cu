// One token times quantised matrices, in the CPU's own order of addition (docs/numerics.md). A block takes 16 rows, its warps units
// side by side, and leaves pairs (a, b) in shared memory; then one lane per row adds fma(a, b, sum) over them in ascending order,
// while loads of the next rows are on their way. Every block normalises and rounds the activations itself, which spares a launch.
#include "cuda/exact.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kWarps = kThreads / 32;

// Shared memory: pairs of the rows in work, the row in f32 where it is normalised, then the rounded row.
struct Layout {
  int floats, high, low, scale, refined, end;
  __host__ __device__ Layout(int columns, int pairs_bytes, bool normalised, bool wide) {
    const int units = columns / 32;
    floats = pairs_bytes;
    high = floats + (normalised ? columns * 4 : 0);
    low = high + columns;
    scale = wide ? low + columns : low;
    refined = scale + units * int(sizeof(BlockScale));
    end = refined + (wide ? 0 : (units + 3) / 4 * int(sizeof(Refined)));
  }
};

// Where round_window writes a window of the row.
struct SharedOut {
  uint32_t *high, *low;
  BlockScale* scales;
  Refined* window;
  int first;  // window
  __device__ void codes(int lane, uint32_t h, uint32_t l) {
    high[first * 32 + lane] = h;
    if (low) low[first * 32 + lane] = l;
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
  SharedOut out{reinterpret_cast<uint32_t*>(shared + at.high), kWide ? reinterpret_cast<uint32_t*>(shared + at.low) : nullptr,
                reinterpret_cast<BlockScale*>(shared + at.scale), reinterpret_cast<Refined*>(shared + at.refined), 0};
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
  return {reinterpret_cast<const uint4*>(shared + at.high), reinterpret_cast<const uint4*>(shared + at.low), out.scales,
          refine ? out.window : nullptr};
}

struct Group {  // of 16 rows
  int part, row;
};

template <int R>
__device__ Group group_of(const LinearOp& op, int g) {
  Group at{0, g};
  if (R == 1) {
    while (at.part + 1 < op.parts && at.row >= (op.w[at.part].rows + kRowGroup - 1) / kRowGroup) {
      at.row -= (op.w[at.part++].rows + kRowGroup - 1) / kRowGroup;
    }
  }
  at.row *= kRowGroup;
  return at;
}

/// What follows the sums of a group's rows, by one warp: bias, the other row of a gated unit, residual.
template <int R>
__device__ void finish(const LinearOp& op, Group at, float acc) {
  const int lane = int(threadIdx.x) % 32, row = at.row + lane % kRowGroup, part = R == 2 ? lane / kRowGroup : at.part;
  bool valid = lane < kRowGroup && row < op.w[part].rows;
  const float* bias = op.bias[part];
  if (bias && row < op.w[part].rows) acc += bias[row];
  if constexpr (R == 2) {
    const float up = __shfl_xor_sync(~0u, acc, kRowGroup);
    acc = activate(op.glu, acc) * up;
  }
  if (!valid) return;
  if (op.residual) acc = __ldcg(op.residual + row) + acc;
  op.y[at.part][row] = acc;
}

// R = 1: 16 rows of one of the parts; R = 2: the same 16 rows of gate and of up. A warp takes 2 J units in a row, half a warp one of
// them: lanes are rows.
template <int F, int R, int J, bool kWide>
struct Work {
  using U = Unit<F>;
  static constexpr int kSpan = kWarps * 2 * J, kLanes = kRowGroup * R;
  static constexpr int kMost = kSpan * U::kPairs + (kWide ? 0 : kSpan / 4 * U::kRefinedPairs);
  static constexpr int kPairsBytes = kMost * kLanes * int(sizeof(float2));
  const LinearOp& op;
  int groups, units, warp, half, row;
  U w[R][J];

  __device__ int unit(int base, int j) const { return base + warp * 2 * J + 2 * j + half; }

  // Where the warp's next units lie.
  struct Next {
    Group at;
    int64_t first;
    int left;  // units from the first of the half warp to the row's end
  };
  __device__ Next next_at(int group, int base) const {
    const int u = unit(base, 0);
    if (group >= groups) return {{0, 0}, 0, 0};
    const Group at = group_of<R>(op, group);
    return {at, U::index(op.w[at.part], at.row + row, u), units - u};
  }
  __device__ void load(const Next& next, int base, int j) {
    if (2 * j >= next.left) return;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const Matrix& m = op.w[R == 2 ? r : next.at.part];
      w[r][j].load_codes(m, next.first + 2 * j * kRowGroup);
      if (j == 0) w[r][0].load_super(m, next.at.row + row, unit(base, 0));
    }
  }
  __device__ void multiply(const Activation& a, int base, int j, float2* pairs) {
    const int u = unit(base, j), in_window = 4 * U::kPairs + (kWide || !a.refined ? 0 : U::kRefinedPairs);
    if (u >= units) return;
    const int window = (warp * J / 2 + j / 2) * in_window, left = units - u / 4 * 4;
    float2* out = pairs + (window + (2 * (j % 2) + half) * U::kPairs) * kLanes + row;
    float2* refined = pairs + (window + (left < 4 ? left : 4) * U::kPairs) * kLanes + row;
#pragma unroll
    for (int r = 0; r < R; ++r) {
      if (j > 0) w[r][j].take_super(w[r][0]);
      w[r][j].template multiply<kWide>(a, u, out + r * kRowGroup, refined + r * kRowGroup, kLanes);
    }
  }
};

/// sum = fma(a, b, sum) over n pairs, each lane its row's.
template <int kLanes>
__device__ float chain(const float2* pairs, int n, float sum) {
  const float2* p = pairs + int(threadIdx.x) % kLanes;
#pragma unroll 16
  for (int i = 0; i < n; ++i) sum = fmaf(p[i * kLanes].x, p[i * kLanes].y, sum);
  return sum;
}

template <int F, int R, int J, bool kWide>
__global__ __launch_bounds__(kThreads, 2) void codes_kernel(const __grid_constant__ LinearOp op, int groups) {
  PLUMB_SHARED(uint8_t, shared);
  __shared__ float parts[64];
  using W = Work<F, R, J, kWide>;
  const int columns = op.w[0].columns, lane = int(threadIdx.x) % 32;
  const Layout layout(columns, W::kPairsBytes, op.norm != nullptr, kWide);
  W work{op, groups, columns / 32, int(threadIdx.x) / 32, lane / kRowGroup, lane % kRowGroup, {}};
  let_successor_start();
  const auto first = work.next_at(int(blockIdx.x), 0);
#pragma unroll
  for (int j = 0; j < J; ++j) work.load(first, 0, j);
  wait_for_predecessor();
  const Activation a = prepare<kWide>(op, layout, shared, parts);
  float2* pairs = reinterpret_cast<float2*>(shared);
  const int of_window = a.refined ? W::U::kRefinedPairs : 0;
  for (int group = int(blockIdx.x); group < groups; group += int(gridDim.x)) {
    float sum = 0;
    for (int base = 0; base < work.units; base += W::kSpan) {
      const bool last = base + W::kSpan >= work.units;
      const int next_base = last ? 0 : base + W::kSpan;
      const auto next = work.next_at(last ? group + int(gridDim.x) : group, next_base);
#pragma unroll
      for (int j = J - 1; j >= 0; --j) {  // the first, whose superblock's scales all need, last
        work.multiply(a, base, j, pairs);
        work.load(next, next_base, j);
      }
      __syncthreads();
      if (work.warp == 0) {
        const int n = last ? work.units - base : W::kSpan;
        sum = chain<W::kLanes>(pairs, n * W::U::kPairs + (n + 3) / 4 * of_window, sum);
        if (last) finish<R>(op, group_of<R>(op, group), sum);
      }
      __syncthreads();
    }
  }
}

template <int F, int R, int J, bool kWide>
const char* run(Context* c, const LinearOp& op) {
  int groups = 0;
  for (int i = 0; i < (R == 1 ? op.parts : 1); ++i) groups += (op.w[i].rows + kRowGroup - 1) / kRowGroup;
  const int most = 2 * c->processors;
  const Layout layout(op.w[0].columns, Work<F, R, J, kWide>::kPairsBytes, op.norm != nullptr, kWide);
  return launch(c, codes_kernel<F, R, J, kWide>, dim3(unsigned(groups < most ? groups : most)), kThreads, layout.end, op, groups);
}

}  // namespace

const char* linear(Context* c, const LinearOp& op) {
  if (op.rounding == kNoRounding) return f32_gemm(c, op);
  const bool codes = quantised(op.w[0].format);
  if (op.n > 1 && (!codes || op.rounding == kHalves)) return half_gemm(c, op);
  if (op.n > 1) return op.n <= kFewTokens ? few_linear(c, op) : code_gemm(c, op);
  if (!codes) return float_linear(c, op);
  if (op.rounding == kHalves) return fast_linear(c, op);
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
