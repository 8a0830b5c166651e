// A few tokens times quantised matrices where sums need not be in the CPU's order (docs/numerics.md, `--act f16`), on tensor cores in
// halves with f32 sums. As columns of a product may come in any order, a lane decodes whole units: a warp takes 16 rows by 128 columns
// at a time, four lanes of a row a unit each, and the 128 columns' products are eight `mma` whose columns are strewn over the four
// units. All warps of a block share an item of 16 R rows (8 R of gate and 8 R of up), each its windows of columns; then warps are added
// in ascending order. The next window's weights are on their way, at first before the kernel before this one has ended.
#include "cuda/exact.cuh"
#include "cuda/half.cuh"

namespace plumb::cuda {
namespace {

constexpr int kMostWarps = 16, kWindowUnits = 4;

struct Place {  // of an item: its part, or that of gate, and the part's item
  int part, item;
};

template <int R, bool kGlu>
__host__ __device__ int items_of(const LinearOp& op, int part) {
  constexpr int kRows = (kGlu ? 8 : 16) * R;
  return (op.w[part].rows + kRows - 1) / kRows;
}
template <int R, bool kGlu>
__device__ Place place_of(const LinearOp& op, int item) {
  Place at{0, item};
  while (!kGlu && at.part + 1 < op.parts && at.item >= items_of<R, kGlu>(op, at.part)) at.item -= items_of<R, kGlu>(op, at.part++);
  return at;
}

// A lane's units of a window: of rows lane / 4 of each 16 and those eight further on, or the same rows of gate and of up.
template <int F, int R, bool kGlu>
struct Window {
  Unit<F> unit[R][2];
  /// Tile r; zeros behind the last column, the last 16 rows again behind the last row.
  __device__ void load(const LinearOp& op, Place at, int window, int r) {
    const int columns = op.w[0].columns, lane = int(threadIdx.x) % 32, u = window * kWindowUnits + lane % 4;
    const Matrix& m = op.w[at.part];
    const int tile = at.item * R + r, last = (m.rows + kRowGroup - 1) / kRowGroup - 1;
    const int group = min(kGlu ? tile / 2 : tile, last), row = lane / 4 + (kGlu ? tile % 2 * 8 : 0);
    const int first = (group * (columns / 32) + u) * kRowGroup + row, super = (group * (columns / 256) + u / 8) * kRowGroup + row;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if (u >= columns / 32) {
        unit[r][h] = {};
        continue;
      }
      unit[r][h].load_codes(kGlu ? op.w[h] : m, kGlu ? first : first + 8 * h);
      unit[r][h].load_super(kGlu ? op.w[h] : m, kGlu ? super : super + 8 * h);
    }
  }
};

// Of tile r and the tokens from `token` on, a lane's token of either parity: its scale, and what its rows are added to, asked for
// before they are needed.
template <int R, bool kGlu>
struct Rest {
  float scale[2], residual[kGlu ? 1 : 4];
  __device__ void load(const LinearOp& op, Place at, int r, int token) {
    const int lane = int(threadIdx.x) % 32, first = (at.item * R + r) * (kGlu ? 8 : 16) + lane / 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) scale[i] = op.x16_scale[min(token + lane % 4 * 2 + i, op.n - 1)] * (1 / kCodeScale);
    if (kGlu || !op.residual) return;
#pragma unroll
    for (int i = 0; i < (kGlu ? 1 : 4); ++i) {
      const int t = min(token + lane % 4 * 2 + i % 2, op.n - 1), row = min(first + i / 2 * 8, op.w[at.part].rows - 1);
      residual[i] = __ldcg(op.residual + t * op.residual_stride + row);
    }
  }
};

/// Bias, the gated unit, residual.
template <int R, bool kGlu>
__device__ void finish(const LinearOp& op, Place at, int r, int token, const float4& sums, const Rest<R, kGlu>& rest) {
  const int lane = int(threadIdx.x) % 32, first = (at.item * R + r) * (kGlu ? 8 : 16) + lane / 4;
#pragma unroll
  for (int i = 0; i < (kGlu ? 2 : 4); ++i) {
    const int t = token + lane % 4 * 2 + i % 2, row = first + i / 2 * 8;
    if (t >= op.n || row >= op.w[at.part].rows) continue;
    const float scale = rest.scale[i % 2];
    float y = (&sums.x)[i] * scale;
    if (op.bias[at.part]) y += op.bias[at.part][row];
    if constexpr (kGlu) {
      float up = (&sums.x)[2 + i] * scale;
      if (op.bias[1]) up += op.bias[1][row];
      y = activate(op.glu, y) * up;
    }
    if (!kGlu && op.residual) y = rest.residual[i % (kGlu ? 1 : 4)] + y;
    op.y[at.part][t * op.y_stride[at.part] + row] = y;
  }
}

/// Items from `item` on, a grid apart.
template <int F, int R, int T, bool kGlu>
__device__ void own_items(const LinearOp& op, int item, int end, float4* parts) {
  const int warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32, lane = int(threadIdx.x) % 32;
  const int windows = (op.w[0].columns / 32 + kWindowUnits - 1) / kWindowUnits;
  const uint4* x = reinterpret_cast<const uint4*>(op.x16) + lane;
  Place at = place_of<R, kGlu>(op, item);
  Window<F, R, kGlu> next;
#pragma unroll
  for (int r = 0; r < R; ++r) {
    if (warp < windows) next.load(op, at, warp, r);
  }
  wait_for_predecessor();
  for (int buffer = 0; item < end; buffer ^= 1) {
    const Place now = at;
    item += int(gridDim.x);
    if (item < end) at = place_of<R, kGlu>(op, item);
    Rest<R, kGlu> rest;
    if (warp < R * T) rest.load(op, now, warp / T, warp % T * 8);
    float sums[R][T][4] = {};
    for (int w = warp; w < windows; w += warps) {
      uint4 b[T][4];
#pragma unroll
      for (int k = 0; k < 4 * T; ++k) b[k / 4][k % 4] = x[((k / 4 * windows + w) * 4 + k % 4) * 32];
      const int u = w * kWindowUnits + lane % 4;
      const bool last = w + warps >= windows;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        const HalfScales<F> scales[2] = {{next.unit[r][0], u}, {next.unit[r][1], u}};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint4 p = scales[0].piece(next.unit[r][0], i), q = scales[1].piece(next.unit[r][1], i);
          const uint32_t low[4] = {p.x, q.x, p.y, q.y}, high[4] = {p.z, q.z, p.w, q.w};
#pragma unroll
          for (int t = 0; t < T; ++t) multiply(sums[r][t], low, b[t][i].x, b[t][i].y), multiply(sums[r][t], high, b[t][i].z, b[t][i].w);
        }
        if (!last || item < end) next.load(op, last ? at : now, last ? warp : w + warps, r);
      }
    }
    float4* mine = parts + (buffer * warps + warp) * R * T * 32 + lane;
#pragma unroll
    for (int k = 0; k < R * T; ++k) {
      const float* s = sums[k / T][k % T];
      mine[k * 32] = {s[0], s[1], s[2], s[3]};
    }
    __syncthreads();
    if (const int k = warp; k < R * T) {  // four warps at least
      const float4* of = parts + buffer * warps * R * T * 32 + k * 32 + lane;
      float4 all = {};
      for (int w = 0; w < warps; ++w) {
        const float4 p = of[w * R * T * 32];
        all = {all.x + p.x, all.y + p.y, all.z + p.z, all.w + p.w};
      }
      finish<R, kGlu>(op, now, k / T, k % T * 8, all, rest);
    }
  }
}

template <int F, int R, int T, bool kGlu>
__global__ __launch_bounds__(32 * kMostWarps, 1) void own_kernel(const __grid_constant__ LinearOp op, int items) {
  PLUMB_SHARED(float4, parts);
  let_successor_start();
  own_items<F, R, T, kGlu>(op, int(blockIdx.x), items, parts);
}

template <int R, bool kGlu>
int all_items(const LinearOp& op) {
  int items = 0;
  for (int i = 0; i < (kGlu ? 1 : op.parts); ++i) items += items_of<R, kGlu>(op, i);
  return items;
}

template <int R, int T, bool kGlu>
const char* run(Context* c, const LinearOp& op) {
  const int windows = (op.w[0].columns / 32 + kWindowUnits - 1) / kWindowUnits;
  int warps = kMostWarps;
  while (warps > 4 && warps >= 2 * windows) warps /= 2;
  const int items = all_items<R, kGlu>(op), most = c->processors * (kMostWarps / warps);
  const char* error = nullptr;
  with_code_format(op.w[0].format, [&](auto f) {
    error = launch(c, own_kernel<f.value, R, T, kGlu>, dim3(unsigned(items < most ? items : most)), 32 * warps,
                   2 * warps * R * T * 32 * int(sizeof(float4)), op, items);
  });
  return error;
}

/// Parts of one format.
template <bool kGlu>
const char* by_size(Context* c, const LinearOp& op) {
  // Items of twice the rows read the activations half as often, but may leave more of the device without work.
  const auto turns = [&](int items) { return (items + c->processors - 1) / c->processors; };
  const bool twice = 2 * turns(all_items<2, kGlu>(op)) <= turns(all_items<1, kGlu>(op));
  if (op.n > 16) return run<1, 4, kGlu>(c, op);
  if (op.n > 8) return twice ? run<2, 2, kGlu>(c, op) : run<1, 2, kGlu>(c, op);
  return twice ? run<2, 1, kGlu>(c, op) : run<1, 1, kGlu>(c, op);
}

}  // namespace

const char* few_own_linear(Context* c, const LinearOp& op) {
  if (op.glu) return by_size<true>(c, op);
  LinearOp of_format = op;
  int parts = 0;
  for (int i = 0; i < op.parts; ++i) {
    of_format.w[parts] = op.w[i], of_format.bias[parts] = op.bias[i];
    of_format.y[parts] = op.y[i], of_format.y_stride[parts] = op.y_stride[i];
    of_format.parts = ++parts;
    if (i + 1 < op.parts && op.w[i + 1].format == op.w[i].format) continue;
    if (const char* error = by_size<false>(c, of_format)) return error;
    parts = 0;
  }
  return nullptr;
}

}  // namespace plumb::cuda
