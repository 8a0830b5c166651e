// What the kernels of one instruction set offer, and the arguments they take. The planner has checked
// everything: kernels are noexcept, allocate nothing and check nothing. Rows of f32 buffers are row_stride()
// floats apart, padding included, so tiles of 32 columns may be written whole.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>

#include "base/isa.h"
#include "cpu/kv_layout.h"
#include "cpu/x8.h"
#include "program/program.h"

namespace plumb {

/// A value of n rows in f32.
struct Rows {
  float* f32 = nullptr;
  int64_t stride = 0;
};

/// Set by any kernel that meets a value that is not finite where it must round it.
using FaultFlag = std::atomic<bool>;

// y [n, 16 * groups] = x W^T for `groups` groups of 16 rows from the first byte of `packed`, then plus
// `residual` if there is one.
struct MatmulArgs {
  const uint8_t* packed;  // of the first group
  int64_t group_bytes;
  int groups;  // an even number
  int columns;
  int n;           // tokens
  X8 x8;           // or
  const float* x;  // [n, x_stride]
  int64_t x_stride;
  float* y;  // [n, y_stride]
  int64_t y_stride;
  const float* residual;  // [n, residual_stride], or null
  int64_t residual_stride;
  uint8_t* scratch;  // matmul_scratch_bytes()
};
using Matmul = void (*)(const MatmulArgs&) noexcept;

struct RowArgs {
  const float* x;  // rows as in Rows
  int64_t x_stride;
  double scale;
  const float* post;  // norm weights, or null
  float post_eps;
  const float* residual;  // or null
  int64_t residual_stride;
  float* sum;  // or null
  int64_t sum_stride;
  const float* norm;  // or null
  float eps;
  Rows out;
  int heads, dim;  // each head is normalised by itself
};

struct HeadArgs {
  const float* x;  // one token's heads
  float* y;        // may not overlap x unless equal
  const float* norm;
  float eps;
  const float *cosine, *sine;  // [dims / 2] of this token, or null
  RopeStyle style;
  int dims, heads, dim;
};

struct AttentionArgs {
  const float* q;  // [tokens, q_stride], the query heads of one kv head: group * dim each
  int64_t q_stride;
  int tokens, group, dim;
  int first_pos;  // of the first token; the others follow
  int window;
  float scale;
  const KvHead* kv;
  float* out;  // [tokens, out_stride]
  int64_t out_stride;
  uint8_t* scratch;  // attention_scratch_bytes()
  /// If not null: of one token, only what `chunk` gives, which the token sees: [group, partial_floats()].
  float* partial = nullptr;
  int64_t chunk = 0;
};

/// Largest score and sum of e, padded to 16, then o.
inline int64_t partial_floats(int dim) { return 16 + kv_dim(dim); }

struct MergeArgs {
  float* partials;  // [chunks, stride] of [group, partial_floats()]; the first is overwritten
  int64_t stride;
  int chunks, group, dim;
  float* out;  // [group, dim]
};

struct Kernels {
  Isa isa;
  /// By Format, for n tokens; null where the format has no kernel of its own and is decoded to f32 first.
  Matmul (*matmul)(Format format) noexcept;
  void (*row)(const RowArgs&, int row_in, int row_out) noexcept;
  void (*head)(const HeadArgs&) noexcept;
  void (*store_k)(const KvHead& kv, int pos, const float* k) noexcept;
  void (*store_v)(const KvHead& kv, int pos, const float* v) noexcept;
  void (*attention)(const AttentionArgs&) noexcept;
  void (*attention_merge)(const MergeArgs&) noexcept;
  /// y = act(gate) * up over n elements (a multiple of 16).
  void (*glu)(Act act, const float* gate, const float* up, float* y, int n) noexcept;
  /// y = a + b
  void (*add)(const float* a, const float* b, float* y, int n) noexcept;
  /// Row t of n, from x [columns].
  void (*quantise)(const float* x, const X8& out, int columns, int n, int t, FaultFlag* fault) noexcept;
};

const Kernels& scalar_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
#elif defined(__aarch64__)
const Kernels& neon_kernels();
#endif
const Kernels& kernels(Isa isa);

/// Bytes of scratch that a matmul of that many columns may use: 32 rows of codes, scales and mins, or of
/// floats.
inline int64_t matmul_scratch_bytes(int64_t columns) {
  return 32 * columns + 2 * 32 * (columns / 16 + 2) * 4 + 32 * columns * 4 + 256;
}

/// Query rows that an attention call takes at once.
constexpr int kAttentionRows = 96;

/// Bytes of scratch of an attention call: scores, queries and two outputs for its rows, 32 keys and 128 x 64
/// values in f32.
inline int64_t attention_scratch_bytes(int dim) {
  return 4 * (kAttentionRows * (kChunk + 3 * int64_t(kv_dim(dim))) + 32 * int64_t(kv_dim(dim)) + 128 * 64);
}

}  // namespace plumb
