// Parts of few_linear.cu: segments of weights and of activations, each lane its part of a tensor core's operands, addressed so that a
// step is one addition; their exact integers; and what follows the sums.
#pragma once

#include "cuda/exact.cuh"
#include "cuda/unit.cuh"

namespace plumb::cuda::few {

constexpr int kFewWarps = 8;  // which take segments in turn

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
    constexpr int kStep = kFewWarps * S * kRowGroup;
    q += kStep * kQ, h += kStep * kH, s += kStep * kS, super += kStep / 8 * kSuper;
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
    x.codes += kFewWarps * S * X::kCodes, x.scales += kFewWarps * S * X::kScales, x.refined += kFewWarps * S / 4 * 8;
  }
};

/// Sums of 16 rows by 8 tokens: rows l / 4 and, two further on, l / 4 + 8 by tokens l % 4 * 2 and the next.
struct Sums {
  float of[4];
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

/// What a warp adds: of matrix r and octet t both vectors of pairs, or one.
struct Share {
  int r, t, first, last;
};

/// Bias, the gated unit, residual.
template <int R>
__device__ void finish(const LinearOp& op, int part, int first_row, int octet, const Share& mine, const Sums& sums, const float4& of_up) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = first_row + lane / 4 + i / 2 * 8, token = octet * 8 + lane % 4 * 2 + i % 2;
    if (i / 2 < mine.first || i / 2 >= mine.last || row >= op.w[part].rows || token >= op.n) continue;
    float y = sums.of[i];
    if (op.bias[part]) y += op.bias[part][row];
    if constexpr (R == 2) {
      float up = (&of_up.x)[i];
      if (op.bias[1]) up += op.bias[1][row];
      y = activate(op.glu, y) * up;
    }
    if (op.residual) y = __ldcg(op.residual + token * op.residual_stride + row) + y;
    op.y[part][token * op.y_stride[part] + row] = y;
  }
}

struct Place {  // of a block
  int part, row, octet;
};
template <int R, int T>
__device__ Place place_of(const LinearOp& op) {
  Place at{0, int(blockIdx.x), int(blockIdx.y) * T};
  while (R == 1 && at.part + 1 < op.parts && at.row >= (op.w[at.part].rows + kRowGroup - 1) / kRowGroup) {
    at.row -= (op.w[at.part++].rows + kRowGroup - 1) / kRowGroup;
  }
  at.row *= kRowGroup;
  return at;
}
template <int R, int T>
dim3 grid_of(const LinearOp& op) {
  int groups = 0;
  for (int i = 0; i < (R == 1 ? op.parts : 1); ++i) groups += (op.w[i].rows + kRowGroup - 1) / kRowGroup;
  return dim3(unsigned(groups), unsigned((op.n + 8 * T - 1) / (8 * T)));
}

}  // namespace plumb::cuda::few
