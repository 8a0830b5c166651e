// A few tokens (2 to kFewTokens) times quantised matrices, in the CPU's own order of addition (docs/numerics.md), as when several
// sequences answer together. A block takes 16 rows; its warps take segments of columns in turn. A warp computes its segment's exact
// integers on tensor cores, octets of tokens beside each other; then the sums, which have one order, come from the warp before it,
// go through the segment, and on to the next warp.
#include "cuda/exact.cuh"
#include "cuda/tile.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

enum Mode : int { kNarrow, kNarrowRefined, kWide };  // RoundOp::rounding

/// Units of a segment: what fits into registers; with refined columns a window.
template <int F, int R, int T, int kMode>
constexpr int kSegment = kMode == kNarrowRefined ? 4 : F == kQ6_K ? 4 / (R * T) : 4 / R;
template <int R, int T>
constexpr int kWarps = R * T == 4 ? 4 : 8;

/// A segment of 16 rows. A lane holds word l % 4 of the units of rows l / 4 and l / 4 + 8: together a tensor core's operand.
template <int F, int S>
struct Piece {
  using U = Unit<F>;
  U unit[S][2];

  __device__ void load(const Matrix& m, int row, int u, int units) {
    const int word = int(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (u < units) unit[0][i].load_super(m, row + 8 * i, u);
#pragma unroll
      for (int k = 0; k < S; ++k) {
        const int64_t at = U::index(m, row + 8 * i, u) + k * kRowGroup;
        if (u + k < units) unit[k][i].load_word(m, at, word), unit[k][i].load_rest(m, at);
      }
    }
  }
  /// Codes less their offset, of unit k: columns 4 word .. 4 word + 3 of both rows, then those 16 further on.
  __device__ void codes(int k, uint32_t* a) const {
    constexpr uint32_t kOffsets = uint32_t(U::kOffset) * 0x01010101u;
    const int word = int(threadIdx.x) % 4;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const uint32_t c = unit[k][e % 2].codes_of_word(word, e / 2);
      a[e] = kOffsets == 0 ? c : ((c | 0x80808080u) - kOffsets) ^ 0x80808080u;
    }
  }
  /// Scale and minimum of unit k, which is unit `of_super` of its superblock; Q6_K: both scales.
  __device__ float2 scales(int k, int i, int of_super) const {
    U with = unit[k][i];
    if (k > 0) with.take_super(unit[0][i]);
    const float2 sm = with.scale_min(of_super);
    if constexpr (F == kQ6_K) return {sm.x * float(with.sub_scale(0)), sm.x * float(with.sub_scale(1))};
    return sm;
  }
};

/// Sums of 16 rows by 8 T tokens: of an octet rows l / 4 and, two further on, l / 4 + 8 by tokens l % 4 * 2 and the next.
template <int R, int T>
struct Sums {
  float of[R][T][4];
};

/// What a segment adds to the chains: pairs (I, w s), of both halves of a unit in Q6_K, and (m, t).
template <int F, int R, int T, int S>
struct Products {
  static constexpr int kHalves = F == kQ6_K ? 2 : 1;
  float of[R][S][T][kHalves][4], by[R][S][T][kHalves][4], m[R][S][2], t[S][T][2];
};

/// The same of a window's refined columns.
template <int R>
struct Refinement {
  float of[R][4], by[R][4], m[R][4], t[4];
};

// Activations as round_rows leaves them for few tokens.
struct Tokens {
  const Codes& codes;
  int octet, units;
  template <class V>
  __device__ V code(int t, int u) const {
    return reinterpret_cast<const V*>(codes.high)[(int64_t(octet + t) * units + u) * 32 + threadIdx.x % 32];
  }
  /// Of the lane's two tokens: scale, scale times the sum of the codes.
  __device__ float4 scales(int t, int u) const {
    return reinterpret_cast<const float4*>(codes.scales)[(int64_t(octet + t) * units + u) * 4 + threadIdx.x % 4];
  }
  __device__ const Refined& refined(int window, int token) const {
    return static_cast<const Refined*>(codes.refined)[(int64_t(octet) * ((units + 3) / 4) + window) * 8 + token];
  }
};

/// I of a unit.
template <int F, int kMode>
__device__ void multiply_unit(const uint32_t* a, const uint4& x, int (&c)[2][4]) {
  int low[2][4] = {};
  if constexpr (F == kQ6_K) {
    multiply_codes_16(c[0], a, x.x), multiply_codes_16(c[1], a + 2, x.y);
    if constexpr (kMode == kWide) multiply_codes_16(low[0], a, x.z), multiply_codes_16(low[1], a + 2, x.w);
  } else {
    multiply_codes(c[0], a, x.x, x.y);
    if constexpr (kMode == kWide) multiply_codes(low[0], a, x.z, x.w);
  }
#pragma unroll
  for (int i = 0; i < 8 && kMode == kWide; ++i) c[i / 4][i % 4] = c[i / 4][i % 4] * 254 + low[i / 4][i % 4];
}

template <int F, int R, int T, int S, int kMode>
__device__ void multiply(const Piece<F, S>* w, const Tokens& x, int u, Products<F, R, T, S>& out) {
#pragma unroll
  for (int k = 0; k < S; ++k) {
    if (u + k >= x.units) break;
    uint32_t a[R][4];
    float2 ws[R][2];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      w[r].codes(k, a[r]);
#pragma unroll
      for (int i = 0; i < 2; ++i) ws[r][i] = w[r].scales(k, i, (u + k) % 8), out.m[r][k][i] = ws[r][i].y;
    }
#pragma unroll
    for (int t = 0; t < T; ++t) {
      uint4 b{};
      if constexpr (kMode == kWide) {
        b = x.code<uint4>(t, u + k);
      } else {
        const uint2 narrow = x.code<uint2>(t, u + k);
        b.x = narrow.x, b.y = narrow.y;
      }
      const float4 s = x.scales(t, u + k);
      out.t[k][t][0] = s.y, out.t[k][t][1] = s.w;
#pragma unroll
      for (int r = 0; r < R; ++r) {
        int c[2][4] = {};
        multiply_unit<F, kMode>(a[r], b, c);
#pragma unroll
        for (int i = 0; i < 4 * out.kHalves; ++i) {
          const float2 of_row = ws[r][i % 4 / 2];
          out.of[r][k][t][i / 4][i % 4] = float(c[i / 4][i % 4]);
          out.by[r][k][t][i / 4][i % 4] = (i < 4 ? of_row.x : of_row.y) * (i % 2 ? s.z : s.x);
        }
      }
    }
  }
}

/// The segment's part of the chains: all else is done before the sums come.
template <int F, int R, int T, int S>
__device__ void add(const Products<F, R, T, S>& p, int left, Sums<R, T>& sums) {
#pragma unroll
  for (int k = 0; k < S; ++k) {
    if (k >= left) break;
#pragma unroll
    for (int i = 0; i < R * T * 4; ++i) {
      const int r = i / (4 * T), t = i / 4 % T, e = i % 4;
      float& acc = sums.of[r][t][e];
      acc = fmaf(p.of[r][k][t][0][e], p.by[r][k][t][0][e], acc);
      if constexpr (F == kQ6_K) acc = fmaf(p.of[r][k][t][1][e], p.by[r][k][t][1][e], acc);
      if constexpr (Unit<F>::kMin) acc = fmaf(p.m[r][k][e / 2], p.t[k][t][e % 2], acc);
    }
  }
}

/// The refined columns of the segment's window: an operand that is zero elsewhere gives their integers.
template <int F, int R>
__device__ void multiply_refined(const Piece<F, 4>* w, const Tokens& x, int u, Refinement<R>& out) {
  const int lane = int(threadIdx.x) % 32, word = lane % 4;
  const Refined mine = x.refined(u / 4, lane / 4);
#pragma unroll
  for (int r = 0; r < R; ++r) {
    int c[4] = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint32_t a[4];
      w[r].codes(k, a);
      multiply_codes(c, a, mine.at == 8 * k + word ? mine.codes : 0, mine.at == 8 * k + 4 + word ? mine.codes : 0);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Refined of = x.refined(u / 4, word * 2 + i % 2);
      float2 ws{};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (of.at / 8 == k) ws = w[r].scales(k, i / 2, (u + k) % 8);
      }
      out.of[r][i] = float(c[i]), out.by[r][i] = (F == kQ6_K && of.at % 8 / 4 == 1 ? ws.y : ws.x) * of.s;
      out.m[r][i] = ws.y, out.t[i] = of.t;
    }
  }
}

template <int F, int R>
__device__ void add_refined(const Refinement<R>& p, Sums<R, 1>& sums) {
#pragma unroll
  for (int i = 0; i < 4 * R; ++i) {
    float& acc = sums.of[i / 4][0][i % 4];
    acc = fmaf(p.of[i / 4][i % 4], p.by[i / 4][i % 4], acc);
    if constexpr (Unit<F>::kMin) acc = fmaf(p.m[i / 4][i % 4], p.t[i % 4], acc);
  }
}

/// Bias, the gated unit, residual.
template <int R, int T>
__device__ void finish(const LinearOp& op, int part, int first_row, int octet, const Sums<R, T>& sums) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int t = 0; t < T; ++t) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = first_row + lane / 4 + i / 2 * 8, token = (octet + t) * 8 + lane % 4 * 2 + i % 2;
      if (row >= op.w[part].rows || token >= op.n) continue;
      float y = sums.of[0][t][i];
      if (op.bias[part]) y += op.bias[part][row];
      if constexpr (R == 2) {
        float up = sums.of[1][t][i];
        if (op.bias[1]) up += op.bias[1][row];
        y = activate(op.glu, y) * up;
      }
      if (op.residual) y = __ldcg(op.residual + token * op.residual_stride + row) + y;
      op.y[part][token * op.y_stride[part] + row] = y;
    }
  }
}

// Sums on their way from warp to warp.
template <int R, int T>
struct Passing {
  TileBarrier ready[kWarps<R, T>];
  float sums[kWarps<R, T>][R * T * 4][32];
  __device__ void give(int warp, const Sums<R, T>& from) {
    const int lane = int(threadIdx.x) % 32;
#pragma unroll
    for (int i = 0; i < R * T * 4; ++i) sums[warp][i][lane] = from.of[i / (4 * T)][i / 4 % T][i % 4];
    __syncwarp();
    if (lane == 0) arrive(ready[warp]);
  }
  __device__ void take(int warp, int parity, Sums<R, T>& to) {
    wait(ready[warp], parity);
#pragma unroll
    for (int i = 0; i < R * T * 4; ++i) to.of[i / (4 * T)][i / 4 % T][i % 4] = sums[warp][i][threadIdx.x % 32];
  }
};

/// 16 rows of a part (R = 2: of gate and of up) from first_row on, by all warps.
template <int F, int R, int T, int kMode>
__device__ void rows(const LinearOp& op, int part, int first_row, int octet, Passing<R, T>& passing) {
  constexpr int S = kSegment<F, R, T, kMode>;
  const int warp = int(threadIdx.x) / 32, row = first_row + int(threadIdx.x) % 32 / 4;
  const int units = op.w[0].columns / 32, segments = (units + S - 1) / S;
  Piece<F, S> next[R];
#pragma unroll
  for (int r = 0; r < R; ++r) next[r].load(op.w[part + r], row, warp * S, units);
  wait_for_predecessor();
  const Tokens x{op.codes, octet, units};
  int visit = warp == 0 ? -1 : 0;
  for (int s = warp; s < segments; s += kWarps<R, T>, ++visit) {
    Piece<F, S> w[R];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      w[r] = next[r];
      next[r].load(op.w[part + r], row, (s + kWarps<R, T>) * S, units);
    }
    Products<F, R, T, S> products;
    multiply<F, R, T, S, kMode>(w, x, s * S, products);
    [[maybe_unused]] Refinement<R> refinement;
    if constexpr (kMode == kNarrowRefined) multiply_refined<F, R>(w, x, s * S, refinement);
    Sums<R, T> sums{};
    if (s > 0) passing.take(warp, visit & 1, sums);
    add(products, units - s * S, sums);
    if constexpr (kMode == kNarrowRefined) add_refined<F>(refinement, sums);
    if (s + 1 < segments) {
      passing.give((warp + 1) % kWarps<R, T>, sums);
    } else {
      finish<R, T>(op, part, first_row, octet, sums);
    }
  }
}

template <int R, int T, int kMode>
__global__ __launch_bounds__(32 * kWarps<R, T>, R* T == 4 ? 3 : 2) void few_kernel(const __grid_constant__ LinearOp op) {
  __shared__ Passing<R, T> passing;
  let_successor_start();
  if (threadIdx.x < kWarps<R, T>) init(passing.ready[threadIdx.x], 1);
  __syncthreads();
  int part = 0, group = int(blockIdx.x);
  while (R == 1 && part + 1 < op.parts && group >= (op.w[part].rows + kRowGroup - 1) / kRowGroup) {
    group -= (op.w[part++].rows + kRowGroup - 1) / kRowGroup;
  }
  const int row = group * kRowGroup, octet = int(blockIdx.y) * T;
  switch (op.w[part].format) {
    case kQ4_0: return rows<kQ4_0, R, T, kMode>(op, part, row, octet, passing);
    case kQ4_1: return rows<kQ4_1, R, T, kMode>(op, part, row, octet, passing);
    case kQ5_0: return rows<kQ5_0, R, T, kMode>(op, part, row, octet, passing);
    case kQ5_1: return rows<kQ5_1, R, T, kMode>(op, part, row, octet, passing);
    case kQ8_0: return rows<kQ8_0, R, T, kMode>(op, part, row, octet, passing);
    case kQ4_K: return rows<kQ4_K, R, T, kMode>(op, part, row, octet, passing);
    case kQ5_K: return rows<kQ5_K, R, T, kMode>(op, part, row, octet, passing);
    default: return rows<kQ6_K, R, T, kMode>(op, part, row, octet, passing);
  }
}

template <int R, int T, int kMode>
const char* run(Context* c, const LinearOp& op) {
  int groups = 0;
  for (int i = 0; i < (R == 1 ? op.parts : 1); ++i) groups += (op.w[i].rows + kRowGroup - 1) / kRowGroup;
  const dim3 grid(unsigned(groups), unsigned((op.n + 8 * T - 1) / (8 * T)));
  return launch(c, few_kernel<R, T, kMode>, grid, 32 * kWarps<R, T>, 0, op);
}

template <int R>
const char* by_mode(Context* c, const LinearOp& op) {
  if (op.rounding == kNarrowRefined) return run<R, 1, kNarrowRefined>(c, op);
  if (op.rounding == kNarrow) return op.n <= 8 ? run<R, 1, kNarrow>(c, op) : run<R, 2, kNarrow>(c, op);
  return op.n <= 8 ? run<R, 1, kWide>(c, op) : run<R, 2, kWide>(c, op);
}

}  // namespace

const char* few_linear(Context* c, const LinearOp& op) { return op.glu ? by_mode<2>(c, op) : by_mode<1>(c, op); }

}  // namespace plumb::cuda
