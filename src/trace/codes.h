// The codes of quantised blocks, one by one: what wrong decoders permute or misread.
#pragma once

#include <cstdint>

#include "quant/format.h"

namespace plumb::trace {

/// Formats whose codes codes_of knows: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, MXFP4.
bool has_codes(Format format);

/// The unsigned codes of a block, in the order of its weights (Q8_0: as bytes).
void codes_of(Format format, const uint8_t* block, int* codes);
void set_codes(Format format, const int* codes, uint8_t* block);

/// Bytes of the block's f16 scale and of its f16 minimum or scale of minima; -1 where it has none.
struct ScalePlaces {
  int scale = -1, min = -1;
};
ScalePlaces scales_of(Format format);

/// Scales and minima of Q4_K and Q5_K, all of 6 bits, packed as quant/q4_k.h says.
void pack_scales_k4(const int* scales, const int* mins, uint8_t* packed);

}  // namespace plumb::trace
