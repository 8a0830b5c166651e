// The stored number formats of GGUF ("ggml types"): ids, block sizes, and the decoder of each.
//
// A tensor row is a sequence of blocks; a block holds `block` weights in `bytes` bytes. The meaning of the
// bytes of each format stands in quant/<format>.h; its specification is the struct of the same name in
// ggml-common.h and the `gguf` Python package (quants.py), against which the tests compare bit for bit.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace plumb {

/// The ids are those written in GGUF files.
enum class Format : uint32_t {
#define FORMAT(name, id, block, bytes) name = id,
#include "quant/formats.inc"
#undef FORMAT
};

struct FormatInfo {
  Format format;
  const char* name;  // "Q4_K", as llama.cpp prints it
  int block;         // weights per block
  int bytes;         // bytes per block
};

/// The format with that id, or null: the file holds something we do not know.
const FormatInfo* find_format(uint32_t id);

/// The format with that name (upper case), or null.
const FormatInfo* find_format(std::string_view name);

const FormatInfo& info(Format format);

/// All formats, in order of id.
std::span<const FormatInfo> formats();

/// Bytes of a row of n weights; n is a multiple of the block size.
inline int64_t row_bytes(Format format, int64_t n) {
  const FormatInfo& f = info(format);
  return n / f.block * f.bytes;
}

/// Decodes n weights (a multiple of the block size) from `bytes` into `out`, in f32. F64 is rounded to
/// nearest.
void decode(Format format, const uint8_t* bytes, int64_t n, float* out);

}  // namespace plumb
