// The codebooks of the IQ1, IQ2 and IQ3 formats, and the sign code that IQ2_XXS, IQ2_XS and IQ3_XXS share.
//
// An entry packs one codeword in 16 bits, weight 0 in the lowest: eight fields of 2 bits (IQ1, IQ2) or four
// fields of 4 bits (IQ3). The field indexes a short list of magnitudes. iq_grids.inc is data of the formats,
// written by scripts/make_iq_grids.py from the `gguf` Python package.
#pragma once

#include <bit>
#include <cstdint>

namespace plumb {

#include "quant/iq_grids.inc"

/// Values of the 2-bit fields of kGridIQ2_*; field 3 does not occur.
inline constexpr uint8_t kLevelsIq2[3] = {0x08, 0x19, 0x2b};
/// Values of the 4-bit fields of kGridIQ3_XXS and kGridIQ3_S.
inline constexpr uint8_t kLevelsIq3Xxs[8] = {0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e};
inline constexpr uint8_t kLevelsIq3S[8] = {0x01, 0x03, 0x05, 0x07, 0x09, 0x0b, 0x0d, 0x0f};

/// Magnitude of weight j (0..7) of a codeword of IQ2_XXS, IQ2_XS or IQ2_S.
inline int grid_iq2(uint16_t codeword, int j) { return kLevelsIq2[codeword >> 2 * j & 3]; }

/// Value of weight j (0..7) of a codeword of IQ1_S or IQ1_M: -1, 0 or 1.
inline int grid_iq1(uint16_t codeword, int j) { return (codeword >> 2 * j & 3) - 1; }

/// Field of weight j (0..3) of a codeword of IQ3_XXS or IQ3_S, 0..7: an index into the levels.
inline int grid_iq3(uint16_t codeword, int j) { return codeword >> 4 * j & 15; }

/// Eight signs (bit set: negative) from seven stored bits: the eighth makes the number of minus signs even.
inline uint8_t even_signs(unsigned index) {
  return uint8_t(index | (unsigned(std::popcount(index)) & 1u) << 7);
}

/// `value`, negated when bit j of `signs` is set.
inline float with_sign(float value, uint8_t signs, int j) { return signs >> j & 1 ? -value : value; }

}  // namespace plumb
