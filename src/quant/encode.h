// Encoders of the stored formats, beside their decoders: f32 weights in, blocks out, with the least squared
// error that a short search finds. Strict f32 in a fixed order: the bytes do not depend on machine or
// compiler.
#pragma once

#include <cstdint>

#include "quant/format.h"

namespace plumb {

/// True for the formats that encode() writes.
bool can_encode(Format format);

/// Encodes n finite weights (a multiple of the block size) into row_bytes(format, n) bytes. Scales beyond the
/// range of f16 are clamped to it.
void encode(Format format, const float* x, int64_t n, uint8_t* bytes);

}  // namespace plumb
