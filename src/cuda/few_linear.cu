// A few tokens (2 to kFewTokens) times quantised matrices, in the CPU's own order of addition (docs/numerics.md), as when several
// sequences answer together. A block takes 16 rows. Eight warps compute segments of columns in turn: exact integers on tensor cores,
// octets of tokens beside each other, and with the scales the pairs (a, b) of every sum's chain, which they leave in shared memory.
// One more warp for each octet goes through the pairs in ascending order, sum = fma(a, b, sum), as nothing else has an order.
#include "cuda/exact.cuh"
#include "cuda/tile.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda {
namespace {

constexpr int kWarps = 8;  // that compute
enum Mode : int { kNarrow, kNarrowRefined, kWide };  // RoundOp::rounding

/// Units of a segment; with refined columns a window.
template <int R, int T, int kMode>
constexpr int kSegment = kMode == kNarrowRefined ? 4 : 4 / (R * T);

/// A segment of 16 rows. A lane holds word l % 4 of the units of rows l / 4 and l / 4 + 8: together a tensor core's operand.
template <int F, int S>
struct Piece {
  using U = Unit<F>;
  U unit[S][2];
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


// Where a lane's words of a segment lie; the warp's next segment is a constant number of bytes further on.
template <int F, int S>
struct Weights {
  using U = Unit<F>;
  static constexpr int kQ = F == kQ8_0 ? 32 : 16, kH = F == kQ6_K ? 8 : U::kFive ? 4 : 0;  // bytes of a unit of a row
  static constexpr int kS = F == kQ4_K || F == kQ5_K ? 0 : F == kQ4_1 || F == kQ5_1 ? 4 : 2;
  static constexpr int kSuper = !U::kSuper ? 0 : F == kQ6_K ? 2 : 16;  // of a superblock of a row
  const uint8_t *q, *h, *s, *super;

  __device__ Weights(const Matrix& m, int row, int u) {
    const int64_t at = U::index(m, row, u);
    const int64_t of_super = (int64_t(row / kRowGroup) * (m.columns / 256) + u / 8) * kRowGroup + row % kRowGroup;
    q = m.q + at * kQ + threadIdx.x % 4 * 4, h = m.h + at * kH, s = m.s + at * kS, super = (F == kQ6_K ? m.d : m.s) + of_super * kSuper;
  }
  template <class V>
  __device__ static V at(const uint8_t* p, int k, int i, int bytes) {
    return __ldcs(reinterpret_cast<const V*>(p + (k * kRowGroup + 8 * i) * bytes));
  }
  /// The units that are inside, `left` or all, and on to the warp's next segment.
  __device__ void load(int left, Piece<F, S>& to) {
#pragma unroll
    for (int k = 0; k < S; ++k) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        U& unit = to.unit[k][i];
        if (k >= left) continue;
        unit.q.x = at<uint32_t>(q, k, i, kQ);
        if constexpr (F == kQ8_0) unit.q2.x = at<uint32_t>(q + 16, k, i, kQ);
        if constexpr (kH == 4) unit.h.x = at<uint32_t>(h, k, i, kH);
        if constexpr (kH == 8) unit.h = at<uint2>(h, k, i, kH);
        if constexpr (kS == 2) unit.s.x = at<uint16_t>(s, k, i, kS);
        if constexpr (kS == 4) unit.s.x = at<uint32_t>(s, k, i, kS);
        if constexpr (kSuper == 16) {
          if (k == 0) unit.s = at<uint4>(super, 0, i, kSuper);
        }
        if constexpr (kSuper == 2) {
          if (k == 0) unit.s.y = at<uint16_t>(super, 0, i, kSuper);
        }
      }
    }
    constexpr int kStep = kWarps * S * kRowGroup;
    q += kStep * kQ, h += kStep * kH, s += kStep * kS, super += kStep / 8 * kSuper;
  }
};

/// Sums of 16 rows by 8 tokens: rows l / 4 and, two further on, l / 4 + 8 by tokens l % 4 * 2 and the next.
struct Sums {
  float of[4];
};

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
// Where a lane's activations of a segment lie, as round_rows leaves them for few tokens; octets behind the last repeat it.
template <int S, bool kLow>
struct Tokens {
  static constexpr int kCodes = 32 * (kLow ? 16 : 8), kScales = 8 * 8;  // bytes of a unit of an octet
  const uint8_t *codes, *scales;
  const Refined* refined;
  int64_t next_codes, next_scales;  // octet
  __device__ Tokens(const LinearOp& op, int octet, int u) {
    const int units = op.w[0].columns / 32, lane = int(threadIdx.x) % 32;
    const bool more = octet < (op.n - 1) / 8;
    codes = op.codes.high + (int64_t(octet) * units + u) * kCodes + lane * (kCodes / 32);
    scales = reinterpret_cast<const uint8_t*>(op.codes.scales) + (int64_t(octet) * units + u) * kScales + lane % 4 * 16;
    refined = static_cast<const Refined*>(op.codes.refined) + (int64_t(octet) * ((units + 3) / 4) + u / 4) * 8;
    next_codes = more ? int64_t(units) * kCodes : 0, next_scales = more ? int64_t(units) * kScales : 0;
  }
};

/// A segment's activations. All are asked for at once, as stores to shared memory hold back the loads behind them.
template <int S, int T>
struct Segment {
  uint4 codes[S][T];
  float4 scales[S][T];  // of the lane's two tokens: scale, scale times the sum of the codes
  template <bool kLow>
  __device__ void load(Tokens<S, kLow>& x, int left) {
    using X = Tokens<S, kLow>;
#pragma unroll
    for (int k = 0; k < S; ++k) {
#pragma unroll
      for (int t = 0; t < T; ++t) {
        if (k >= left) continue;
        const uint8_t* from = x.codes + t * x.next_codes + k * X::kCodes;
        if constexpr (kLow) {
          codes[k][t] = *reinterpret_cast<const uint4*>(from);
        } else {
          const uint2 narrow = *reinterpret_cast<const uint2*>(from);
          codes[k][t] = {narrow.x, narrow.y, 0, 0};
        }
        scales[k][t] = *reinterpret_cast<const float4*>(x.scales + t * x.next_scales + k * X::kScales);
      }
    }
    x.codes += kWarps * S * X::kCodes, x.scales += kWarps * S * X::kScales, x.refined += kWarps * S / 4 * 8;
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


template <int F, int R, int T, int kMode>
__device__ void multiply(const Piece<F, kSegment<R, T, kMode>>* w, const Segment<kSegment<R, T, kMode>, T>& x, int left, int slot,
                         const Slots<F, R, T, kMode>& out) {
  const int of_super = slot * out.S;  // a warp's segments begin at the same unit of their superblocks
#pragma unroll
  for (int k = 0; k < out.S; ++k) {
    if (k >= left) break;
    uint32_t a[R][4];
    float2 ws[R][2];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      w[r].codes(k, a[r]);
      ws[r][0] = w[r].scales(k, 0, (of_super + k) % 8), ws[r][1] = w[r].scales(k, 1, (of_super + k) % 8);
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
}

/// The refined columns of the segment's window: an operand that is zero elsewhere gives their integers.
template <int F, int R, int T, int kMode>
__device__ void multiply_refined(const Piece<F, 4>* w, const Refined* refined, int slot, const Slots<F, R, T, kMode>& out) {
  const int lane = int(threadIdx.x) % 32, word = lane % 4;
  const Refined mine = refined[lane / 4], of_token[2] = {refined[word * 2], refined[word * 2 + 1]};
#pragma unroll
  for (int r = 0; r < R; ++r) {
    int c[4] = {};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      uint32_t a[4];
      w[r].codes(k, a);
      multiply_codes(c, a, mine.at == 8 * k + word ? mine.codes : 0, mine.at == 8 * k + 4 + word ? mine.codes : 0);
    }
    float by[4], m[4], t[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Refined& of = of_token[i % 2];
      float2 ws{};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (of.at / 8 == k) ws = w[r].scales(k, i / 2, (slot * 4 + k) % 8);
      }
      by[i] = (F == kQ6_K && of.at % 8 / 4 == 1 ? ws.y : ws.x) * of.s, m[i] = ws.y, t[i % 2] = of.t;
    }
    out.at(slot, 4, r, 0, 0) = {float(c[0]), by[0], float(c[1]), by[1]};
    out.at(slot, 4, r, 0, 1) = {float(c[2]), by[2], float(c[3]), by[3]};
    if constexpr (Unit<F>::kMin) {
      out.at(slot, 4, r, 0, out.kPairs) = {m[0], m[1], m[2], m[3]};
      out.at(slot, 4, r, 0, out.kPairs + 1) = {t[0], t[1], 0, 0};
    }
  }
}

/// A unit's pairs to the sums of octet t.
template <int F, int R, int T, int kMode>
__device__ void add_unit(const Slots<F, R, T, kMode>& from, int slot, int unit, int t, Sums (&sums)[R]) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
    float* acc = sums[r].of;
#pragma unroll
    for (int v = 0; v < from.kPairs; ++v) {
      const float4 p = from.at(slot, unit, r, t, v);
      acc[v % 2 * 2] = fmaf(p.x, p.y, acc[v % 2 * 2]), acc[v % 2 * 2 + 1] = fmaf(p.z, p.w, acc[v % 2 * 2 + 1]);
    }
    if constexpr (Unit<F>::kMin) {
      const float4 m = from.at(slot, unit, r, t, from.kPairs);
      acc[0] = fmaf(m.x, m.z, acc[0]), acc[1] = fmaf(m.x, m.w, acc[1]);
      acc[2] = fmaf(m.y, m.z, acc[2]), acc[3] = fmaf(m.y, m.w, acc[3]);
    }
  }
}

template <int F, int R, int T, int kMode>
__device__ void add_refined(const Slots<F, R, T, kMode>& from, int slot, Sums (&sums)[R]) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
    float* acc = sums[r].of;
    const float4 a = from.at(slot, 4, r, 0, 0), b = from.at(slot, 4, r, 0, 1);
    acc[0] = fmaf(a.x, a.y, acc[0]), acc[1] = fmaf(a.z, a.w, acc[1]), acc[2] = fmaf(b.x, b.y, acc[2]), acc[3] = fmaf(b.z, b.w, acc[3]);
    if constexpr (Unit<F>::kMin) {
      const float4 m = from.at(slot, 4, r, 0, from.kPairs), t = from.at(slot, 4, r, 0, from.kPairs + 1);
      acc[0] = fmaf(m.x, t.x, acc[0]), acc[1] = fmaf(m.y, t.y, acc[1]), acc[2] = fmaf(m.z, t.x, acc[2]), acc[3] = fmaf(m.w, t.y, acc[3]);
    }
  }
}

/// Bias, the gated unit, residual.
template <int R>
__device__ void finish(const LinearOp& op, int part, int first_row, int octet, const Sums (&sums)[R]) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first_row + lane / 4 + i / 2 * 8, token = octet * 8 + lane % 4 * 2 + i % 2;
    if (row >= op.w[part].rows || token >= op.n) continue;
    float y = sums[0].of[i];
    if (op.bias[part]) y += op.bias[part][row];
    if constexpr (R == 2) {
      float up = sums[1].of[i];
      if (op.bias[1]) up += op.bias[1][row];
      y = activate(op.glu, y) * up;
    }
    if (op.residual) y = __ldcg(op.residual + token * op.residual_stride + row) + y;
    op.y[part][token * op.y_stride[part] + row] = y;
  }
}

struct Barriers {
  TileBarrier full[kWarps], empty[kWarps];
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
    [[maybe_unused]] const Refined* refined = x.refined;
    segment.load(x, left);
    Piece<F, S> w[R];
#pragma unroll
    for (int r = 0; r < R; ++r) {
      w[r] = next[r];
      from[r].load(left - kWarps * S, next[r]);
    }
    wait(barriers.empty[warp], visit & 1 ^ 1);
    multiply<F, R, T, kMode>(w, segment, left, warp, slots);
    if constexpr (kMode == kNarrowRefined) multiply_refined<F, R, T, kMode>(w, refined, warp, slots);
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(barriers.full[warp]);
  }
}

/// And the sums of octet t of the block's.
template <int F, int R, int T, int kMode>
__device__ void add_up(const LinearOp& op, int part, int first_row, int octet, int t, const Slots<F, R, T, kMode>& slots, Barriers& barriers) {
  constexpr int S = Slots<F, R, T, kMode>::S;
  const int units = op.w[0].columns / 32;
  Sums sums[R] = {};
  wait_for_predecessor();  // whose output a residual may be
  for (int u = 0, s = 0; u < units; u += S, ++s) {
    const int slot = s % kWarps;
    wait(barriers.full[slot], s / kWarps & 1);
    if (u + S <= units) {
#pragma unroll
      for (int k = 0; k < S; ++k) add_unit(slots, slot, k, t, sums);
    } else {
      for (int k = 0; u + k < units; ++k) add_unit(slots, slot, k, t, sums);
    }
    if constexpr (kMode == kNarrowRefined) add_refined(slots, slot, sums);
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(barriers.empty[slot]);
  }
  finish(op, part, first_row, octet + t, sums);
}

template <int F, int R, int T, int kMode>
__device__ void rows(const LinearOp& op, int part, int first_row, int octet, uint8_t* shared, Barriers& barriers) {
  const Slots<F, R, T, kMode> slots{reinterpret_cast<float4*>(shared)};
  const int warp = int(threadIdx.x) / 32;
  warp < kWarps ? compute(op, part, first_row, octet, slots, barriers) : add_up(op, part, first_row, octet, warp - kWarps, slots, barriers);
}

template <int R, int T, int kMode>
__global__ __launch_bounds__(32 * (kWarps + T), 2) void few_kernel(const __grid_constant__ LinearOp op) {
  PLUMB_SHARED(uint8_t, shared);
  __shared__ Barriers barriers;
  let_successor_start();
  if (threadIdx.x < kWarps) init(barriers.full[threadIdx.x], 1), init(barriers.empty[threadIdx.x], T);
  __syncthreads();
  int part = 0, group = int(blockIdx.x);
  while (R == 1 && part + 1 < op.parts && group >= (op.w[part].rows + kRowGroup - 1) / kRowGroup) {
    group -= (op.w[part++].rows + kRowGroup - 1) / kRowGroup;
  }
  const int row = group * kRowGroup, octet = int(blockIdx.y) * T;
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
  int groups = 0, shared = 0;
  for (int i = 0; i < op.parts; ++i) {
    if (R == 1 || i == 0) groups += (op.w[i].rows + kRowGroup - 1) / kRowGroup;
    with_code_format(op.w[i].format, [&](auto f) { shared = max(shared, kWarps * Slots<f.value, R, T, kMode>::kBytes); });
  }
  const dim3 grid(unsigned(groups), unsigned((op.n + 8 * T - 1) / (8 * T)));
  return launch(c, few_kernel<R, T, kMode>, grid, 32 * (kWarps + T), shared, op);
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
