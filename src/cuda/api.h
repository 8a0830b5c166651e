// What libplumb_cuda.so offers: memory, captured graphs, and one launch per operation. Plain structs and C
// functions, so that the library needs nothing of Plumb and Plumb nothing of CUDA. Every function returns
// null, or what went wrong.
#pragma once

#include <cstdint>

namespace plumb::cuda {

constexpr int kApiVersion = 10;

// Stored forms of matrices on the device (docs/cuda.md): planes of 16-byte units of 32 codes, and of what
// scales them. Units of kRowGroup rows lie side by side, [rows / 16][units][16], and so do superblocks'
// scales; rows of F32 and BF16 are whole; F16 lies in tiles of kTileRows rows by 64 columns as in shared
// memory (tile.cuh).
constexpr int kRowGroup = 16, kTileRows = 128;
enum MatrixFormat : int {
  kF32,
  kF16,
  kBF16,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kMatrixFormats
};

struct Matrix {
  const uint8_t* q;  // low four bits (Q8_0: all eight), or the values
  const uint8_t* h;  // high bits, where there are any
  const uint8_t* s;  // scales and mins
  const uint8_t* d;  // Q6_K: d of each 256
  int format, rows, columns;
  int whole_rows;  // of the matrix of which these are some: what the order of a sum may depend on
};

/// out [n, stride] = row of the table of each token, times scale.
struct EmbedOp {
  Matrix table;
  const int* tokens;
  int n;
  float scale;
  float* out;
  int64_t stride;
};

/// RowStep of plan/plan.h; `rows`: which input row each output row takes, or null.
struct RowOp {
  const float* x;
  int64_t x_stride;
  float scale;
  const float* post;
  float post_eps;
  const float* residual;
  int64_t residual_stride;
  float* sum;
  int64_t sum_stride;
  const float* norm;
  float eps;
  float* out;
  int64_t out_stride;
  const int* rows;
  int n, heads, dim;
};

/// Activations of n tokens as integers (docs/numerics.md): codes, or their two planes, [n][columns]; scales
/// [n][columns / 32] of (s, s times the sum of the codes); what is refined [n][columns / 128, rounded up].
struct Codes {
  uint8_t *high, *low;
  float* scales;
  void* refined;
};
constexpr int kRefinedBytes = 16;

/// Up to this many tokens of quantised matrices have a kernel and an order of `codes` of their own
/// (few_linear.cu).
constexpr int kFewTokens = 32;

/// Rounds rows, normalised first if there is a norm; rounding: 0 to 8 bits, 1 to 8 bits refined, 2 to 16
/// bits.
constexpr int kNoRounding = 3;  // of a LinearOp: all in f32, from x, which has no norm
constexpr int kHalves =
    4;  // of a LinearOp: sums in an order of the device's own; of many tokens, all factors f16
struct RoundOp {
  const float* x;
  int64_t x_stride;
  Codes codes;
  int n, columns, rounding;
  const float* norm;
  float eps;
};

/// Up to three matrices of one input. One token: of one format; x is normalised, if there is a norm, and
/// rounded here, and gate and up, of one format, give act(gate) * up. More tokens: on tensor cores, quantised
/// weights times `codes`, without a norm and, beyond kFewTokens or refined, without glu, or, with kHalves and
/// for float weights, times x16 and its scales [n].
struct LinearOp {
  const float* x;
  int64_t x_stride;
  const uint16_t* x16;
  const float* x16_scale;
  Codes codes;
  int rounding, own_order;  // own_order: of a few tokens' sums, x16 in octets
  const float* norm;
  float eps;
  int n, parts, glu;  // glu: 0 none, 1 silu, 2 gelu
  Matrix w[3];
  const float* bias[3];
  float* y[3];
  int64_t y_stride[3];
  const float* residual;
  int64_t residual_stride;
};

/// x16 = f16(x / scale), scale a power of two per row that puts the largest element in [2^11, 2^12); x is
/// normalised first if there is a norm. x16 lies in tiles of 128 tokens by 64 columns, both rounded up
/// (half.cuh), or, with `octets`, as operands for 8 tokens by 128 columns; then the norm's factor is in the
/// scale.
struct HalfOp {
  const float* x;
  int64_t x_stride;
  uint16_t* x16;
  float* x16_scale;
  int n, columns;
  const float* norm;
  float eps;
  int octets;
};

/// Keys and values lie in pages of kAttentionChunk positions, in each for every layer [position][heads][dim].
constexpr int kAttentionChunk = 256;
struct Pages {
  uint8_t* const* tables;  // [sequences][stride], by position / kAttentionChunk
  const int* sequences;    // by token; null: the first
  int stride;
};

/// Heads of up to three of q, k, v: optional norm, optional rope, then to y and, for k and v, into the pages;
/// y and table may be null.
struct HeadsOp {
  struct Part {
    const float* x;
    int64_t x_stride;
    float* y;
    int64_t y_stride;
    const float* norm;
    float eps;
    const float* table;  // [n_ctx][dims]: cosines, then sines
    int64_t cache;       // bytes from the start of a page; -1: nowhere
    int pairs, dims, heads, dim;
  };
  Part part[3];
  const int* positions;
  Pages pages;
  int parts, cache_f32, n;
};

/// Attention in chunks of kAttentionChunk keys at absolute positions, joined in ascending order. Without
/// `runs`, tokens of n sequences, one of each: a block per chunk, the last to arrive joins them; with
/// `fused`, q, k and v are first made from part[0..2] as HeadsOp makes them, and only the tokens' own keys
/// and values are written during the call. With `runs`: several tokens, in runs of one sequence each.
struct AttentionOp {
  const float* q;
  int64_t q_stride;
  int64_t k, v;  // bytes from the start of a page
  const int* positions;
  Pages pages;
  float* out;
  int64_t out_stride;
  float* partial;     // [n][heads][2 chunks][dim + 2], without runs
  unsigned* counter;  // [n][heads], zero before and after, without runs
  float scale;
  int cache_f32, window, heads, kv_heads, dim, n, chunks;
  int halves;       // products of halves on tensor cores
  const int* runs;  // first tokens [n_runs], and, runs_apart further on, their numbers of tokens
  int runs_apart, n_runs, longest;
  int fused;
  HeadsOp::Part part[3];
};

struct GluOp {
  const float *gate, *up;
  float* out;
  int64_t stride;
  int act, n;  // 1 silu, 2 gelu
};

/// Rows of `size` floats, `stride` apart there and here, to the host's memory; *bad, there too, becomes 1
/// where one is infinite or NaN. Done when the stream is.
struct DeliverOp {
  const float* from;
  float* to;
  int64_t stride;
  int n, size;
  uint32_t* bad;
};

/// Rows of the parts of several devices side by side, to [n, to_stride]. Parts are read where they are.
constexpr int kMostDevices = 8;
struct GatherOp {
  struct Part {
    const float* from;
    int64_t stride;
    int first, size;
  };
  Part part[kMostDevices];
  int parts, n;
  float* to;
  int64_t to_stride;
};

struct DeviceInfo {
  char name[128];
  int64_t bytes, free_bytes;
  int major, minor, processors;
};

struct Context;
struct Graph;

struct Api {
  int version;
  const char* (*count)(int* devices);
  const char* (*open)(int device, Context** out, DeviceInfo* info);
  void (*close)(Context*);
  const char* (*memory)(Context*, int64_t* free_bytes);
  const char* (*allocate)(Context*, int64_t bytes, void** out);
  void (*release)(Context*, void*);
  const char* (*allocate_host)(Context*, int64_t bytes, void** out);
  void (*release_host)(Context*, void*);
  const char* (*upload)(Context*, void* to, const void* from, int64_t bytes);
  const char* (*download)(Context*, void* to, const void* from, int64_t bytes);
  const char* (*copy)(Context*, void* to, const void* from, int64_t bytes);  // on the device
  const char* (*zero)(Context*, void* to, int64_t bytes);
  const char* (*embed)(Context*, const EmbedOp&);
  const char* (*row)(Context*, const RowOp&);
  const char* (*linear)(Context*, const LinearOp&);
  const char* (*half)(Context*, const HalfOp&);
  const char* (*round)(Context*, const RoundOp&);
  const char* (*heads)(Context*, const HeadsOp&);
  const char* (*attention)(Context*, const AttentionOp&);
  const char* (*glu)(Context*, const GluOp&);
  const char* (*begin)(Context*);
  const char* (*end)(Context*, Graph** out);
  const char* (*run)(Context*, Graph*);
  void (*drop)(Context*, Graph*);
  const char* (*deliver)(Context*, const DeliverOp&);
  const char* (*wait)(Context*);  // until all that was asked for is done
  const char* (*gather)(Context*, const GatherOp&);
  const char* (*reach)(Context*, Context* other);   // from now on memory of the other's device can be read
  const char* (*mark)(Context*);                    // here, for others to follow
  const char* (*follow)(Context*, Context* other);  // what comes now waits for the other's last mark
  void (*without_warpgroups)(Context*);  // from now on the kernels of devices that lack Hopper's: for tests
};

}  // namespace plumb::cuda

extern "C" __attribute__((visibility("default"))) const plumb::cuda::Api* plumb_cuda_api();
