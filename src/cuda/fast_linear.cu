// One token times quantised matrices where sums need not be in the CPU's order (docs/numerics.md, `--act f16`): the integers are
// exact, a lane adds its own units, then lanes and warps are added in a fixed order. A team of warps takes 8 rows (4 of gate and the
// same 4 of up); a lane takes four units in a row, whose next four are on their way, at first before the kernel before this one has
// ended. What counts is how few instructions a unit takes.
#include "cuda/exact.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kMostThreads = 1024, kRows = 8, kQuarters = 32 / kRows;
constexpr int J = 4;  // units of a lane in a turn: a window, and half a superblock

// Shared memory: the rounded row, 16 bytes left out behind every window so that quarters of a warp meet different banks.
struct Layout {
  static constexpr int kCodes = 2 * J + 1, kScales = J + 1;  // of a window, in pieces of 16 bytes
  int low, scale, norm, row, end;  // norm, row: as they came, windows behind the first of each of `warps`
  __host__ __device__ Layout(int units, int warps) {
    const int windows = (units + J - 1) / J, later = (windows > warps ? windows - warps : 0) * kWindow * 4;
    low = windows * kCodes * 16, scale = 2 * low, norm = scale + windows * kScales * 16;
    row = norm + later, end = row + later;
  }
};

struct SharedOut {
  uint32_t *high, *low;
  BlockScale* scales;
  int first;  // window
  __device__ int at(int lane) const { return first * Layout::kCodes * 4 + lane; }
  __device__ void codes(int lane, uint32_t h, uint32_t l) { high[at(lane)] = h, low[at(lane)] = l; }
  __device__ void scale(int block, const BlockScale& b) { scales[first * Layout::kScales + block] = b; }
  __device__ void refined(const Refined&) {}
};

/// The row, or the norm's weights, in windows as a warp takes them: its first is in a register, those behind it, all asked for at
/// once, in shared memory.
struct Windows {
  const float* from;  // may be null: all zeros
  float4* later;      // [windows behind the first of every warp][32]
  int columns;
  float4 first;

  __device__ static int of_lane(int window) { return window * kWindow + int(threadIdx.x) % 32 * 4; }
  __device__ Windows(const float* from_, float4* later_, int columns_) : from(from_), later(later_), columns(columns_), first{} {
    const int warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32, lane = int(threadIdx.x) % 32;
    if (!from) return;
    if (of_lane(warp) < columns) first = __ldcg(reinterpret_cast<const float4*>(from + of_lane(warp)));
    for (int w = warp + warps; of_lane(w) < columns; w += warps) copy16(later + (w - warps) * 32 + lane, from + of_lane(w), true);
    commit_copies();
  }
  /// Window w of this warp, behind the first once wait_for_copies() has been called.
  __device__ float4 at(int w) const {
    const int warps = int(blockDim.x) / 32;
    if (w < warps) return first;
    return of_lane(w) < columns ? later[(w - warps) * 32 + int(threadIdx.x) % 32] : float4{};
  }
};

/// Rounds the row to 16 bits, times the norm's weights if there is a norm, for which `squares` are the sums of `summing` warps: this
/// block's, or with kPart a multiple of them.
template <bool kPart>
__device__ void prepare(const LinearOp& op, int summing, const Windows& norm, const Windows& x, SharedOut out, float* squares) {
  const int n = op.w[0].columns, lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, warps = int(blockDim.x) / 32;
#pragma unroll 1
  for (int s = warp;; s += warps) {
    float sum = 0;
#pragma unroll 1
    for (int w = s; w < (n + kWindow - 1) / kWindow; w += kPart ? summing : warps) {
      if (kPart ? w >= warps : w == warp + warps) wait_for_copies();
      float4 v = x.at(w);
      if (op.norm) {
        const float4 g = norm.at(w);
        sum = fmaf(v.x, v.x, fmaf(v.y, v.y, fmaf(v.z, v.z, fmaf(v.w, v.w, sum))));
        v = {v.x * g.x, v.y * g.y, v.z * g.z, v.w * g.w};
      }
      out.first = w;
      round_window<true>(v, Windows::of_lane(w) < n, false, out);
    }
    if (op.norm) sum = warp_sum(sum);
    if (lane == 0) squares[s] = sum;
    if (!kPart || s + warps >= summing) break;
  }
  __syncthreads();
}

/// Four units of a row, unit u on, or the `left` that there are, times the window of activations at (high, low, scales).
template <int F, bool kWhole>
__device__ float multiply(const Unit<F>* w, int u, int left, const uint4* high, const uint4* low, const BlockScale* scales) {
  using U = Unit<F>;
  float acc = 0, mins = 0;
  [[maybe_unused]] uint32_t of_scales = 0, of_mins = 0;
  if constexpr (U::kSuper && F != kQ6_K) w[0].super_bytes(u / J % 2, of_scales, of_mins);
#pragma unroll
  for (int j = 0; j < J; ++j) {
    if (!kWhole && j >= left) break;
    const BlockScale b = scales[j];
    int i0 = 0, i1 = 0;
    w[j].add_codes(high[2 * j], high[2 * j + 1], i0, i1);
    i0 *= 254, i1 *= 254;
    w[j].add_codes(low[2 * j], low[2 * j + 1], i0, i1);
    if constexpr (F == kQ6_K) {
      i0 -= U::kOffset * b.low, i1 -= U::kOffset * b.high;
      acc = fmaf(fmaf(float(i0), float(w[j].sub_scale(0)), float(i1) * float(w[j].sub_scale(1))), b.s, acc);
    } else if constexpr (U::kSuper) {
      acc = fmaf(float(i0 + i1), float(of_scales >> 8 * j & 255u) * b.s, acc);
      mins = fmaf(float(of_mins >> 8 * j & 255u), b.t, mins);
    } else {
      i0 += i1;
      if (U::kOffset != 0) i0 -= U::kOffset * (b.low + b.high);
      acc = fmaf(float(i0), half_bits(w[j].s.x & 0xffff) * b.s, acc);
      if constexpr (U::kMin) acc = fmaf(half_bits(w[j].s.x >> 16), b.t, acc);
    }
  }
  if constexpr (F == kQ6_K) return half_bits(w[0].s.y) * acc;
  if constexpr (U::kSuper) return fmaf(half_bits(w[0].s.x & 0xffff), acc, -(half_bits(w[0].s.x >> 16) * mins));
  return acc;
}

// How a launch cuts its matrices up: items of kRows rows, in turn to the teams of all blocks.
struct Cut {
  int items, teams, warps_log2;  // of a block; of a team
  int summing;                   // warps that would add up the row's squares for the whole matrices
  __device__ int warps() const { return 1 << warps_log2; }
};

template <int F, bool kGlu, bool kPart>
struct Team {
  const LinearOp& op;
  Cut cut;
  int warp, units;  // warp: which of its team's this is
  Unit<F> w[J];

  struct Item {  // part, and this lane's row of it
    int part, row;
  };
  __device__ Item at(int item) const {
    const int r = int(threadIdx.x % kRows);
    if (kGlu) return {r / 4, item * 4 + r % 4};
    Item i{0, item * kRows + r};
    while (i.part + 1 < op.parts && i.row >= (op.w[i.part].rows + kRows - 1) / kRows * kRows) {
      i.row -= (op.w[i.part++].rows + kRows - 1) / kRows * kRows;
    }
    return i;
  }
  __device__ int span() const { return cut.warps() * kQuarters * J; }
  __device__ int unit(int base) const { return base + (warp * kQuarters + int(threadIdx.x % 32 / kRows)) * J; }

  __device__ void load(Item i, int base) {
    const int u = unit(base);
    if (u >= units) return;
    const Matrix& m = op.w[i.part];
    const int64_t first = Unit<F>::index(m, i.row, u);
#pragma unroll
    for (int j = 0; j < J; ++j) {
      if (u + j < units) w[j].load_codes(m, first + j * kRowGroup);
    }
    w[0].load_super(m, i.row, u);
  }

  // Where this lane's sum goes and what is added to it, asked for before it is needed; -0 changes nothing.
  struct Target {
    float* y;  // null: nowhere
    float bias, residual;
  };
  __device__ Target target(Item i, int item) const {
    Target to{nullptr, -0.0f, -0.0f};
    if (warp > 0 || item >= cut.items || i.row >= op.w[i.part].rows) return to;
    if (op.bias[i.part]) to.bias = __ldg(op.bias[i.part] + i.row);
    if (threadIdx.x % 32 >= (kGlu ? 4 : kRows)) return to;
    to.y = op.y[i.part] + i.row;
    if (!kGlu && op.residual) to.residual = __ldcg(op.residual + i.row);
    return to;
  }
  __device__ float factor(const float* squares) const {
    if (!op.norm) return 1;
    const int lane = int(threadIdx.x % 32);
    return norm_factor(warp_sum(lane < (kPart ? cut.summing : int(blockDim.x / 32)) ? squares[lane] : 0.0f), op.w[0].columns, op.eps);
  }
  /// What the team's warps have summed, in ascending order.
  __device__ float add_up(const float* of_warps) const {
    if (cut.warps_log2 == 1) return 0.0f + of_warps[0] + of_warps[1];
    float acc = 0;
#pragma unroll 4
    for (int i = 0; i < cut.warps(); i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(of_warps + i);
      acc += four.x, acc += four.y, acc += four.z, acc += four.w;
    }
    return acc;
  }
  /// By the team's first warp: the sum over quarters and warps is in every lane of a row.
  __device__ void finish(const Target& to, float acc) const {
    acc += to.bias;
    if constexpr (kGlu) acc = activate(op.glu, acc) * __shfl_xor_sync(~0u, acc, 4);
    if (to.y) *to.y = to.residual + acc;
  }
};

/// kPart: of rows whose whole matrices would have blocks of more warps.
template <int F, bool kGlu, bool kPart>
__global__ __launch_bounds__(kMostThreads, 1) void fast_kernel(const __grid_constant__ LinearOp op, const Cut cut) {
  PLUMB_SHARED(uint8_t, shared);
  __shared__ float4 sums[2][kRows][8 + 1];  // of four warps
  __shared__ float squares[32];
  using T = Team<F, kGlu, kPart>;
  const int units = op.w[0].columns / 32, warp = int(threadIdx.x / 32), lane = int(threadIdx.x % 32);
  T team{op, cut, warp & (cut.warps() - 1), units, {}};
  let_successor_start();
  const int step = int(gridDim.x) * cut.teams, span = team.span();
  int first = int(blockIdx.x) * cut.teams, item = first + (warp >> cut.warps_log2);  // the block's and the team's
  typename T::Item at = team.at(item);
  if (item < cut.items) team.load(at, 0);
  const Layout layout(units, int(blockDim.x / 32));
  const Windows norm(op.norm, reinterpret_cast<float4*>(shared + layout.norm), op.w[0].columns);
  wait_for_predecessor();
  const Windows x(op.x, reinterpret_cast<float4*>(shared + layout.row), op.w[0].columns);
  typename T::Target to = team.target(at, item);
  prepare<kPart>(op, cut.summing, norm, x,
          {reinterpret_cast<uint32_t*>(shared), reinterpret_cast<uint32_t*>(shared + layout.low),
           reinterpret_cast<BlockScale*>(shared + layout.scale), 0},
          squares);
  const float factor = team.warp == 0 ? team.factor(squares) : 1.0f;  // only they finish; meanwhile others multiply
  const uint4* codes = reinterpret_cast<const uint4*>(shared);
  for (int buffer = 0; first < cut.items; buffer ^= 1) {  // teams of a block end together, the last perhaps empty
    float acc = 0;
    const typename T::Target now = to;
    for (int base = 0; base < units; base += span) {
      const int u = team.unit(base), window = u / J;
      const uint4 *high = codes + window * Layout::kCodes, *low = high + layout.low / 16;
      const BlockScale* scales = reinterpret_cast<const BlockScale*>(codes + layout.scale / 16) + window * Layout::kScales;
      if (u < units) {
        acc += Unit<F>::kSuper || u + J <= units ? multiply<F, true>(team.w, u, J, high, low, scales)
                                                 : multiply<F, false>(team.w, u, units - u, high, low, scales);
      }
      const bool last = base + span >= units;
      if (last) item += step, first += step;
      const bool more = item < cut.items;
      if (last && more) at = team.at(item);
      if (last) to = team.target(at, item);
      if (more) team.load(at, last ? 0 : base + span);
    }
    for (int o = kRows; o < 32; o <<= 1) acc += __shfl_xor_sync(~0u, acc, o);
    if (cut.warps_log2 > 0) {
      if (lane < kRows) reinterpret_cast<float*>(sums[buffer][lane])[warp] = acc;
      __syncthreads();
      if (team.warp > 0) continue;
      acc = team.add_up(reinterpret_cast<const float*>(sums[buffer][lane % kRows]) + warp);
    }
    team.finish(now, acc * factor);
  }
}

/// Warps of a team, as a power of two: as many as take the fewest turns, where adding up a team's sums is worth one.
int warps_log2_of(int items, int units, int processors) {
  int best = 0, least = 0;
  for (int i = 0; 1 << i <= kMostThreads / 32; ++i) {
    const int warps = 1 << i, span = warps * kQuarters * J, teams = kMostThreads / 32 / warps * processors;
    const int turns = (items + teams - 1) / teams * ((units + span - 1) / span + 1);
    if (least == 0 || turns < least) best = i, least = turns;
  }
  return best;
}

/// Items of the rows that are here, or of all rows of the matrices.
template <bool kGlu>
int items_of(const LinearOp& op, bool all) {
  int items = 0;
  for (int i = 0; i < (kGlu ? 1 : op.parts); ++i) {
    const int rows = all ? op.w[i].whole_rows : op.w[i].rows;
    items += kGlu ? (rows + 3) / 4 : (rows + kRows - 1) / kRows;
  }
  return items;
}

/// Every order of addition is that of the whole matrices, also where a device has some of their rows.
template <int F, bool kGlu>
const char* run(Context* c, const LinearOp& op) {
  const int units = op.w[0].columns / 32, items = items_of<kGlu>(op, false), all = items_of<kGlu>(op, true);
  const int warps_log2 = warps_log2_of(all, units, c->processors), warps = 1 << warps_log2, most = kMostThreads / 32 / warps;
  // All processors, with no more teams each than it takes, but warps enough to round the row.
  const int enough = (8 + warps - 1) / warps;
  int teams = (all + c->processors - 1) / c->processors;
  teams = teams > most ? most : teams < enough ? enough : teams;
  const int summing = teams * warps, each = (items + c->processors - 1) / c->processors;
  for (int fewer = 1; fewer < teams; ++fewer) {
    if (summing / warps % fewer == 0 && fewer >= enough && fewer >= each) teams = fewer;
  }
  const int blocks = (items + teams - 1) / teams;
  const auto go = [&](auto kernel) {
    return launch(c, kernel, dim3(unsigned(blocks < c->processors ? blocks : c->processors)), teams * warps * 32,
                  Layout(units, teams * warps).end, op, Cut{items, teams, warps_log2, summing});
  };
  return summing == teams * warps ? go(fast_kernel<F, kGlu, false>) : go(fast_kernel<F, kGlu, true>);
}

}  // namespace

const char* fast_linear(Context* c, const LinearOp& op) {
  const char* error = nullptr;
  with_code_format(op.w[0].format, [&](auto f) { error = op.glu ? run<f.value, true>(c, op) : run<f.value, false>(c, op); });
  return error;
}

}  // namespace plumb::cuda
