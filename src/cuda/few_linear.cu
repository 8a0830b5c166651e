// A few tokens (2 to kFewTokens) times quantised matrices, in the CPU's own order of addition (docs/numerics.md), as when several
// sequences answer together. A block takes 16 rows. Eight warps compute segments of columns in turn: exact integers on tensor cores,
// octets of tokens beside each other, and with the scales the pairs (a, b) of every sum's chain, which they leave in shared memory.
// More warps, one for each matrix and octet and at least two, go through the pairs in ascending order, sum = fma(a, b, sum), as
// nothing else has an order.
#include "cuda/exact.cuh"
#include "cuda/few.cuh"
#include "cuda/tile.cuh"

namespace plumb::cuda {
namespace {

using namespace few;

constexpr int kWarps = kFewWarps;  // that compute
template <int R, int T>
constexpr int kAdders = R * T == 1 ? 2 : R * T;  // warps that add; of a single octet one takes rows l / 4, the other l / 4 + 8

/// Pairs of a segment's units on their way from the warps that compute to those that add; for each unit, matrix and octet vectors of
/// 32 lanes: (a, b) of four sums in two of them, twice in Q6_K, then (m, m, t, t) where there is a minimum. The refined columns are one
/// more unit, with an m of every sum.
template <int F, int R, int T, int kMode>
struct Slots {
  static constexpr int S = kSegment<R, T, kMode>, kUnits = S + (kMode == kNarrowRefined ? 1 : 0);
  static constexpr int kPairs = F == kQ6_K ? 4 : 2;
  static constexpr int kVectors = kPairs + (!Unit<F>::kMin ? 0 : kMode == kNarrowRefined ? 2 : 1);
  static constexpr int kBytes = kUnits * R * T * kVectors * 32 * int(sizeof(float4));
  float4* memory;
  __device__ float4& at(int slot, int unit, int r, int t, int vector) const {
    return memory[((((slot * kUnits + unit) * R + r) * T + t) * kVectors + vector) * 32 + threadIdx.x % 32];
  }
};

/// The refined columns of a window, four of each token: an operand that is zero elsewhere gives their integers. Taken up unit by unit,
/// while the unit's codes and scales are there.
template <int F, int R>
struct RefinedSums {
  const Refined* of_two;  // of the lane's two tokens
  int at, at_of[2];       // of token lane / 4; of the two
  uint32_t codes;
  int c[R][4] = {};
  float2 ws[R][4] = {};  // scale of the token's refined columns and minimum, as the pairs lie

  __device__ explicit RefinedSums(const Refined* refined) {
    const int lane = int(threadIdx.x) % 32;
    of_two = refined + lane % 4 * 2;
    at = refined[lane / 4].at, codes = refined[lane / 4].codes, at_of[0] = of_two[0].at, at_of[1] = of_two[1].at;
  }
  __device__ void take(int k, int r, const uint32_t* a, const float2* scales) {
    const int first = at - 8 * k, word = int(threadIdx.x) % 4;
    multiply_codes(c[r], a, first == word ? codes : 0, first == 4 + word ? codes : 0);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int first_of = at_of[i % 2] - 8 * k;
      if (first_of < 0 || first_of >= 8) continue;
      ws[r][i] = {F == kQ6_K && first_of >= 4 ? scales[i / 2].y : scales[i / 2].x, scales[i / 2].y};
    }
  }
  __device__ static float2 scale_of(const Refined& r) { return *reinterpret_cast<const float2*>(&r.s); }
  template <class Slots>
  __device__ void put(int slot, const Slots& out) const {
    const float2 t[2] = {scale_of(of_two[0]), scale_of(of_two[1])};  // read again rather than kept
#pragma unroll
    for (int r = 0; r < R; ++r) {
      out.at(slot, 4, r, 0, 0) = {float(c[r][0]), ws[r][0].x * t[0].x, float(c[r][1]), ws[r][1].x * t[1].x};
      out.at(slot, 4, r, 0, 1) = {float(c[r][2]), ws[r][2].x * t[0].x, float(c[r][3]), ws[r][3].x * t[1].x};
      if constexpr (Unit<F>::kMin) {
        out.at(slot, 4, r, 0, out.kPairs) = {ws[r][0].y, ws[r][1].y, ws[r][2].y, ws[r][3].y};
        out.at(slot, 4, r, 0, out.kPairs + 1) = {t[0].y, t[1].y, 0, 0};
      }
    }
  }
};

struct Nothing {
  __device__ explicit Nothing(const Refined*) {}
  __device__ void take(int, int, const uint32_t*, const float2*) {}
  template <class Slots>
  __device__ void put(int, const Slots&) const {}
};

/// The pairs of a segment's units into a slot.
template <int F, int R, int T, int kMode>
__device__ void multiply(const Piece<F, kSegment<R, T, kMode>>* w, const Segment<kSegment<R, T, kMode>, T>& x, const Refined* refined,
                         int left, int slot, const Slots<F, R, T, kMode>& out) {
  const int of_super = slot * out.S;  // a warp's segments begin at the same unit of their superblocks
  std::conditional_t<kMode == kNarrowRefined, RefinedSums<F, R>, Nothing> sums(refined);
#pragma unroll
  for (int k = 0; k < out.S; ++k) {
    if (k >= left) break;
    uint32_t a[R][4];
    float2 ws[R][2];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      w[r].codes(k, a[r]);
      ws[r][0] = w[r].scales(k, 0, (of_super + k) % 8), ws[r][1] = w[r].scales(k, 1, (of_super + k) % 8);
      sums.take(k, r, a[r], ws[r]);
    }
#pragma unroll
    for (int t = 0; t < T; ++t) {
      const float4 s = x.scales[k][t];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        int c[2][4] = {};
        multiply_unit<F, kMode>(a[r], x.codes[k][t], c);
#pragma unroll
        for (int v = 0; v < out.kPairs; ++v) {  // of row l / 4 + 8 (v % 2)
          const float scale = v < 2 ? ws[r][v % 2].x : ws[r][v % 2].y;
          const int* i = &c[v / 2][v % 2 * 2];
          out.at(slot, k, r, t, v) = {float(i[0]), scale * s.x, float(i[1]), scale * s.z};
        }
        if constexpr (Unit<F>::kMin) out.at(slot, k, r, t, out.kPairs) = {ws[r][0].y, ws[r][1].y, s.y, s.w};
      }
    }
  }
  sums.put(slot, out);
}

/// A unit's pairs to the sums.
template <int F, int R, int T, int kMode>
__device__ void add_unit(const Slots<F, R, T, kMode>& from, int slot, int unit, const Share& mine, Sums& sums) {
  float* acc = sums.of;
#pragma unroll
  for (int v = 0; v < from.kPairs; ++v) {
    if (v % 2 < mine.first || v % 2 >= mine.last) continue;
    const float4 p = from.at(slot, unit, mine.r, mine.t, v);
    acc[v % 2 * 2] = fmaf(p.x, p.y, acc[v % 2 * 2]), acc[v % 2 * 2 + 1] = fmaf(p.z, p.w, acc[v % 2 * 2 + 1]);
  }
  if constexpr (Unit<F>::kMin) {
    const float4 m = from.at(slot, unit, mine.r, mine.t, from.kPairs);
    acc[0] = fmaf(m.x, m.z, acc[0]), acc[1] = fmaf(m.x, m.w, acc[1]);
    acc[2] = fmaf(m.y, m.z, acc[2]), acc[3] = fmaf(m.y, m.w, acc[3]);
  }
}

template <int F, int R, int T, int kMode>
__device__ void add_refined(const Slots<F, R, T, kMode>& from, int slot, const Share& mine, Sums& sums) {
  float* acc = sums.of;
  const float4 a = from.at(slot, 4, mine.r, mine.t, 0), b = from.at(slot, 4, mine.r, mine.t, 1);
  acc[0] = fmaf(a.x, a.y, acc[0]), acc[1] = fmaf(a.z, a.w, acc[1]), acc[2] = fmaf(b.x, b.y, acc[2]), acc[3] = fmaf(b.z, b.w, acc[3]);
  if constexpr (Unit<F>::kMin) {
    const float4 m = from.at(slot, 4, mine.r, mine.t, from.kPairs), t = from.at(slot, 4, mine.r, mine.t, from.kPairs + 1);
    acc[0] = fmaf(m.x, t.x, acc[0]), acc[1] = fmaf(m.y, t.y, acc[1]), acc[2] = fmaf(m.z, t.x, acc[2]), acc[3] = fmaf(m.w, t.y, acc[3]);
  }
}

struct Barriers {  // every lane arrives: `compute-sanitizer` knows no order through __syncwarp, and it is no slower
  TileBarrier full[kWarps], empty[kWarps], joined[2];  // joined: the octet's sums of up are in `up`
  float4 up[2][32];
};

/// 16 rows of a part (R = 2: of gate and of up) from first_row on: a warp's segments.
template <int F, int R, int T, int kMode>
__device__ void compute(const LinearOp& op, int part, int first_row, int octet, const Slots<F, R, T, kMode>& slots, Barriers& barriers) {
  constexpr int S = Slots<F, R, T, kMode>::S;
  const int warp = int(threadIdx.x) / 32, row = first_row + int(threadIdx.x) % 32 / 4, units = op.w[0].columns / 32;
  Weights<F, S> from[2] = {{op.w[part], row, warp * S}, {op.w[R == 2 ? 1 : part], row, warp * S}};
  Piece<F, S> next[R];
#pragma unroll
  for (int r = 0; r < R; ++r) from[r].load(units - warp * S, next[r]);
  wait_for_predecessor();
  Tokens<S, kMode == kWide> x(op, octet, warp * S);
  for (int left = units - warp * S, visit = 0; left > 0; left -= kWarps * S, ++visit) {
    Segment<S, T> segment;
    const Refined* refined = x.refined;
    segment.load(x, left);
    Piece<F, S> w[R];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      w[r] = next[r];
      from[r].load(left - kWarps * S, next[r]);
    }
    wait(barriers.empty[warp], visit & 1 ^ 1);
    multiply<F, R, T, kMode>(w, segment, refined, left, warp, slots);
    arrive(barriers.full[warp]);
  }
}

/// And a warp's share of the sums.
template <int F, int R, int T, int kMode>
__device__ void add_up(const LinearOp& op, int part, int first_row, int octet, const Share& mine, const Slots<F, R, T, kMode>& slots,
                       Barriers& barriers) {
  constexpr int S = Slots<F, R, T, kMode>::S;
  const int units = op.w[0].columns / 32, lane = int(threadIdx.x) % 32;
  Sums sums = {};
  wait_for_predecessor();  // whose output a residual may be
  for (int u = 0, s = 0; u < units; u += S, ++s) {
    const int slot = s % kWarps;
    wait(barriers.full[slot], s / kWarps & 1);
    if (u + S <= units) {
#pragma unroll
      for (int k = 0; k < S; ++k) add_unit(slots, slot, k, mine, sums);
    } else {
      for (int k = 0; u + k < units; ++k) add_unit(slots, slot, k, mine, sums);
    }
    if constexpr (kMode == kNarrowRefined) add_refined(slots, slot, mine, sums);
    arrive(barriers.empty[slot]);
  }
  float4 up = {};
  if constexpr (R == 2) {
    if (mine.r == 1) {
      barriers.up[mine.t][lane] = {sums.of[0], sums.of[1], sums.of[2], sums.of[3]};
      arrive(barriers.joined[mine.t]);
      return;
    }
    wait(barriers.joined[mine.t], 0);
    up = barriers.up[mine.t][lane];
  }
  finish<R>(op, part, first_row, octet + mine.t, mine, sums, up);
}

template <int F, int R, int T, int kMode>
__device__ void rows(const LinearOp& op, int part, int first_row, int octet, uint8_t* shared, Barriers& barriers) {
  const Slots<F, R, T, kMode> slots{reinterpret_cast<float4*>(shared)};
  const int warp = int(threadIdx.x) / 32, adder = warp - kWarps;
  if (adder < 0) return compute(op, part, first_row, octet, slots, barriers);
  const Share mine = R * T == 1 ? Share{0, 0, adder, adder + 1} : Share{adder / T, adder % T, 0, 2};
  add_up(op, part, first_row, octet, mine, slots, barriers);
}

template <int R, int T, int kMode>
__global__ __launch_bounds__(32 * (kWarps + kAdders<R, T>), 2) void few_kernel(const __grid_constant__ LinearOp op) {
  PLUMB_SHARED(uint8_t, shared);
  __shared__ Barriers barriers;
  let_successor_start();
  if (threadIdx.x < kWarps) init(barriers.full[threadIdx.x], 32), init(barriers.empty[threadIdx.x], 32 * kAdders<R, T>);
  if (threadIdx.x < 2) init(barriers.joined[threadIdx.x], 32);
  __syncthreads();
  const auto [part, row, octet] = place_of<R, T>(op);
  switch (op.w[part].format) {
    case kQ4_0: return rows<kQ4_0, R, T, kMode>(op, part, row, octet, shared, barriers);
    case kQ4_1: return rows<kQ4_1, R, T, kMode>(op, part, row, octet, shared, barriers);
    case kQ5_0: return rows<kQ5_0, R, T, kMode>(op, part, row, octet, shared, barriers);
    case kQ5_1: return rows<kQ5_1, R, T, kMode>(op, part, row, octet, shared, barriers);
    case kQ8_0: return rows<kQ8_0, R, T, kMode>(op, part, row, octet, shared, barriers);
    case kQ4_K: return rows<kQ4_K, R, T, kMode>(op, part, row, octet, shared, barriers);
    case kQ5_K: return rows<kQ5_K, R, T, kMode>(op, part, row, octet, shared, barriers);
    default: return rows<kQ6_K, R, T, kMode>(op, part, row, octet, shared, barriers);
  }
}

template <int R, int T, int kMode>
const char* run(Context* c, const LinearOp& op) {
  int shared = 0;
  for (int i = 0; i < op.parts; ++i) {
    with_code_format(op.w[i].format, [&](auto f) { shared = max(shared, kWarps * Slots<f.value, R, T, kMode>::kBytes); });
  }
  return launch(c, few_kernel<R, T, kMode>, grid_of<R, T>(op), 32 * (kWarps + kAdders<R, T>), shared, op);
}

template <int R>
const char* by_mode(Context* c, const LinearOp& op) {
  if constexpr (R == 1) {  // gate and up together would need twice the registers that there are: the caller asks for them as two parts
    if (op.rounding == kNarrowRefined) return run<R, 1, kNarrowRefined>(c, op);
  }
  if (op.rounding == kNarrow) return op.n <= 8 ? run<R, 1, kNarrow>(c, op) : run<R, 2, kNarrow>(c, op);
  return op.n <= 8 ? run<R, 1, kWide>(c, op) : run<R, 2, kWide>(c, op);
}

}  // namespace

const char* few_linear(Context* c, const LinearOp& op) {
  if (op.own_order) return few_own_linear(c, op);
  return op.glu ? by_mode<2>(c, op) : by_mode<1>(c, op);
}

}  // namespace plumb::cuda
