#include "cuda/repack.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstring>

#include "base/error.h"
#include "quant/blocks.h"

namespace plumb::cuda {
namespace {

// The unit's 32 codes of 4 bits: element i in the low half of byte i, element 16 + i in the high half.
void put_low(const uint8_t* code, uint8_t* q) {
  for (int i = 0; i < 16; ++i) q[i] = uint8_t((code[i] & 15) | (code[16 + i] & 15) << 4);
}

// Bit 4 of element 4 w + b as bit w of byte b.
void put_fifth(const uint8_t* code, uint8_t* h) {
  for (int e = 0; e < 32; ++e) h[e % 4] = uint8_t(h[e % 4] | (code[e] >> 4 & 1) << e / 4);
}

// Bits 4 and 5 of element 4 w + b as bits 2 (w mod 4) of byte b; elements from 16 on in the second four
// bytes.
void put_sixth(const uint8_t* code, uint8_t* h) {
  for (int e = 0; e < 32; ++e) {
    uint8_t& byte = h[e / 16 * 4 + e % 4];
    byte = uint8_t(byte | (code[e] >> 4 & 3) << e / 4 % 4 * 2);
  }
}

// Where a row's first unit and superblock go; the next are kRowGroup of them further on.
struct Out {
  uint8_t *q, *h, *s, *d;
};
constexpr int64_t kG = kRowGroup;

template <class B>
void simple(const B* b, int64_t blocks, Out o) {  // Q4_0, Q4_1, Q5_0, Q5_1
  constexpr bool kFive = requires { b->qh; };
  constexpr size_t kScale = offsetof(B, qs) - (kFive ? 4 : 0);
  for (int64_t i = 0; i < blocks; ++i, ++b) {
    std::memcpy(o.s + i * kG * int64_t(kScale), b, kScale);
    std::memcpy(o.q + i * kG * 16, b->qs, 16);
    if constexpr (kFive) {
      uint8_t code[32];
      for (int e = 0; e < 32; ++e) code[e] = uint8_t((b->qh[e / 8] >> e % 8 & 1) << 4);
      put_fifth(code, o.h + i * kG * 4);
    }
  }
}

template <class B>
void q4_or_q5_k(const B* b, int64_t blocks, Out o) {
  for (int64_t i = 0; i < blocks; ++i, ++b) {
    std::memcpy(o.s + i * kG * 16, b, 16);  // d, dmin, scales
    for (int j = 0; j < 8; ++j) {
      uint8_t code[32];
      for (int e = 0; e < 32; ++e) {
        code[e] = uint8_t(b->qs[j / 2 * 32 + e] >> j % 2 * 4 & 15);
        if constexpr (requires { b->qh; }) code[e] = uint8_t(code[e] | (b->qh[e] >> j & 1) << 4);
      }
      put_low(code, o.q + (i * 8 + j) * kG * 16);
      if constexpr (requires { b->qh; }) put_fifth(code, o.h + (i * 8 + j) * kG * 4);
    }
  }
}

void q6_k(const BlockQ6_K* b, int64_t blocks, Out o) {
  for (int64_t i = 0; i < blocks; ++i, ++b) {
    for (int j = 0; j < 8; ++j) std::memcpy(o.s + (i * 8 + j) * kG * 2, b->scales + 2 * j, 2);
    std::memcpy(o.d + i * kG * 2, &b->d, 2);
    for (int j = 0; j < 8; ++j) {
      uint8_t code[32];
      for (int e = 0; e < 32; ++e) {
        const int g = 2 * j + e / 16, k = e % 16;
        const int low = b->ql[g / 8 * 64 + g % 4 * 16 + k] >> g / 4 % 2 * 4 & 15;
        const int high = b->qh[g / 8 * 32 + g % 2 * 16 + k] >> g / 2 % 4 * 2 & 3;
        code[e] = uint8_t(low | high << 4);
      }
      put_low(code, o.q + (i * 8 + j) * kG * 16);
      put_sixth(code, o.h + (i * 8 + j) * kG * 8);
    }
  }
}

template <class B>
const B* as(const uint8_t* p) {
  return reinterpret_cast<const B*>(p);
}

void repack_row(Format format, const uint8_t* in, int64_t columns, Out o) {
  const int64_t n = columns / 32, k = columns / 256;
  switch (format) {
    case Format::Q4_0:
      return simple(as<BlockQ4_0>(in), n, o);
    case Format::Q4_1:
      return simple(as<BlockQ4_1>(in), n, o);
    case Format::Q5_0:
      return simple(as<BlockQ5_0>(in), n, o);
    case Format::Q5_1:
      return simple(as<BlockQ5_1>(in), n, o);
    case Format::Q4_K:
      return q4_or_q5_k(as<BlockQ4_K>(in), k, o);
    case Format::Q5_K:
      return q4_or_q5_k(as<BlockQ5_K>(in), k, o);
    case Format::Q6_K:
      return q6_k(as<BlockQ6_K>(in), k, o);
    case Format::Q8_0:
      for (int64_t i = 0; i < n; ++i) {
        std::memcpy(o.s + i * kG * 2, in + i * 34, 2);
        std::memcpy(o.q + i * kG * 32, in + i * 34 + 2, 32);
      }
      return;
    default:
      std::memcpy(o.q, in, size_t(row_bytes(format, columns)));
  }
}

// Zeros beside the last column, which tensor cores multiply too.
void repack_tiles(const WeightRef& w, int64_t first, int64_t rows, uint8_t* out) {
  const int64_t bytes = w.columns * 2, row_of_tiles = planes(kF16, w.columns).q * kTileRows;
  std::memset(out, 0, size_t(rows_in_memory(kF16, rows) / kTileRows * row_of_tiles));
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* in = w.data + (first + r) * bytes;
    uint8_t* to = out + r / kTileRows * row_of_tiles + r % kTileRows * 128;
    for (int64_t piece = 0; piece < bytes / 16; ++piece) {
      std::memcpy(to + piece / 8 * kTileRows * 128 + ((piece ^ r) & 7) * 16, in + piece * 16, 16);
    }
  }
}

[[noreturn]] void unsupported(const std::string& expected, const std::string& found, Where where) {
  throw Error({.code = "cuda.unsupported",
               .expected = expected,
               .found = found,
               .where = std::move(where),
               .remedy = "run it with --backend cpu"});
}

void check_matrix(const WeightRef& w) {
  if (!matrix_format(w.format)) {
    unsupported("a format with CUDA kernels: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K",
                info(w.format).name, {.tensor = w.name});
  }
  if (w.columns % 32 != 0 || w.columns > 32768) {
    unsupported("columns that are a multiple of 32, at most 32768", std::to_string(w.columns),
                {.tensor = w.name});
  }
}

void check_node(const Program& p, const Node& n) {
  if (const auto* e = std::get_if<Embed>(&n.op)) check_matrix(p.weights[size_t(e->table)]);
  if (const auto* l = std::get_if<Linear>(&n.op)) check_matrix(p.weights[size_t(l->w)]);
  const auto* a = std::get_if<Attention>(&n.op);
  if (!a) return;
  const Shape q = p.shape(n.in[0]), k = p.shape(n.in[1]);
  if (q.dim % 8 != 0 || q.dim > 256)
    unsupported("heads of at most 256, a multiple of 8", std::to_string(q.dim), {.tensor = n.name});
  if (q.heads % k.heads != 0 || a->map != HeadMap::grouped)
    unsupported("grouped query heads", "others", {.tensor = n.name});
}

}  // namespace

std::optional<MatrixFormat> matrix_format(Format format) {
  switch (format) {
    case Format::F32:
      return kF32;
    case Format::F16:
      return kF16;
    case Format::BF16:
      return kBF16;
    case Format::Q4_0:
      return kQ4_0;
    case Format::Q4_1:
      return kQ4_1;
    case Format::Q5_0:
      return kQ5_0;
    case Format::Q5_1:
      return kQ5_1;
    case Format::Q8_0:
      return kQ8_0;
    case Format::Q4_K:
      return kQ4_K;
    case Format::Q5_K:
      return kQ5_K;
    case Format::Q6_K:
      return kQ6_K;
    default:
      return {};
  }
}

Planes planes(MatrixFormat format, int64_t columns) {
  const int64_t n = columns / 32, k = columns / 256;
  switch (format) {
    case kF32:
      return {columns * 4};
    case kF16:
      return {(columns + 63) / 64 * 128};
    case kBF16:
      return {columns * 2};
    case kQ4_0:
      return {n * 16, 0, n * 2};
    case kQ4_1:
      return {n * 16, 0, n * 4};
    case kQ5_0:
      return {n * 16, n * 4, n * 2};
    case kQ5_1:
      return {n * 16, n * 4, n * 4};
    case kQ8_0:
      return {n * 32, 0, n * 2};
    case kQ4_K:
      return {n * 16, 0, k * 16};
    case kQ5_K:
      return {n * 16, n * 4, k * 16};
    default:
      return {n * 16, n * 8, n * 2, k * 2};
  }
}

int64_t rows_in_memory(MatrixFormat format, int64_t rows) {
  const int64_t group = format == kF16 ? kTileRows : kRowGroup;
  return (rows + group - 1) / group * group;
}

void repack(const WeightRef& w, int64_t first, int64_t rows, uint8_t* q, uint8_t* h, uint8_t* s, uint8_t* d) {
  if (w.format == Format::F16) return repack_tiles(w, first, rows, q);
  const Planes p = planes(*matrix_format(w.format), w.columns);
  if (p.h > 0) std::memset(h, 0, size_t(p.h * ((rows + kG - 1) / kG * kG)));
  const bool floats = p.s == 0;
  const int64_t k = p.d > 0 ? 2 : 0,
                scale = w.format == Format::Q4_K || w.format == Format::Q5_K ? 16 : p.s * 32 / w.columns;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t group = floats ? r : r / kG * kG, in = floats ? 0 : r % kG;
    repack_row(w.format, w.data + (first + r) * row_bytes(w.format, w.columns), w.columns,
               {q + group * p.q + in * (p.q * 32 / w.columns), h + group * p.h + in * (p.h * 32 / w.columns),
                s + group * p.s + in * scale, d + group * p.d + in * k});
  }
}

void check_supported(const Program& program) {
  for (const Node& n : program.nodes) check_node(program, n);
}

}  // namespace plumb::cuda
