// Activations in int8: how the rows that a matrix reads lie in memory (formulas: docs/numerics.md).
//
// Blocks of 32 columns have a scale s and codes q. Rounded to 8 bits, a code is one int8; to 16 bits it is
// q = 254 high + low, in two planes of int8, so that integer multipliers take it. Refined 8 bits: every
// window of 128 columns has besides, for the four columns of which one needs it most, int8 codes of a coarser
// scale, and the plane holds what they leave.
//
// The n tokens of a call are cut into tiles of at most six, as equal as possible; within a tile of N tokens
// the groups of four codes lie side by side, [columns / 4][N][4], and so do all other arrays, because a
// matrix tile multiplies one line of weights with all N.
#pragma once

#include <cstdint>

#include "plan/plan.h"

namespace plumb {

constexpr int kTokenTile = 6;

struct TokenTile {
  int first, count;
};

/// Tile i of n tokens.
inline constexpr TokenTile token_tile(int n, int i) {
  const int tiles = (n + kTokenTile - 1) / kTokenTile, small = n / tiles, large = n % tiles;
  return i < large ? TokenTile{i * (small + 1), small + 1} : TokenTile{large + i * small, small};
}
inline constexpr int token_tiles(int n) { return (n + kTokenTile - 1) / kTokenTile; }

/// The tile that holds token t.
inline constexpr TokenTile token_tile_of(int n, int t) {
  const int tiles = token_tiles(n), small = n / tiles, large = n % tiles, border = large * (small + 1);
  return token_tile(n, t < border ? t / (small + 1) : large + (t - border) / small);
}

/// q = kPlaneBase * high + low, both in [-127, 127].
constexpr int kPlaneBase = 254;
/// The largest |q| of 16 bits: 127 * 254 + 126, so that q / 254 still rounds to 127.
constexpr int kLargestCode = 32384;
/// Sums of codes are kept as -128 times the sum: where an accumulator starts when its weights have offset
/// 128.
constexpr int kStartOffset = 128;
/// Columns of a window, of which four are refined.
constexpr int kWindow = 128;

struct X8 {
  int8_t* high = nullptr;       // [columns / 4][4]: the codes of 8 bits, or the high plane of 15
  int8_t* low = nullptr;        // the low plane; null where codes have 8 bits
  float* scales = nullptr;      // [columns / 32]
  float* sums = nullptr;        // [columns / 32]: s times the sum of the block's codes, as one f32
  int32_t* starts = nullptr;    // [columns / 32]: -128 times the sum of the block's codes
  int32_t* starts16 = nullptr;  // [columns / 16]: the same of 16 codes
  // Of the window's refined columns; null without refinement.
  int32_t* refined_at = nullptr;      // [windows]: first of the four columns, / 4
  int32_t* refined_codes = nullptr;   // [windows]: four int8
  int32_t* refined_starts = nullptr;  // [windows]
  float* refined_scales = nullptr;    // [windows]
  float* refined_sums = nullptr;      // [windows]: scale times the sum of the four

  X8() = default;
  /// Over x8_bytes(capacity, columns, rounding) bytes, for up to `capacity` rows.
  X8(uint8_t* memory, int64_t capacity, int64_t columns, Rounding rounding) {
    const auto take = [&](auto*& p, int64_t per_row) {
      p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(memory);
      memory += capacity * per_row * int64_t(sizeof *p);
    };
    take(high, columns);
    if (rounding == Rounding::int16) take(low, columns);
    take(scales, columns / 32), take(sums, columns / 32), take(starts, columns / 32),
        take(starts16, columns / 16);
    if (rounding != Rounding::refined) return;
    const int64_t windows = (columns + kWindow - 1) / kWindow;
    take(refined_at, windows), take(refined_codes, windows), take(refined_starts, windows);
    take(refined_scales, windows), take(refined_sums, windows);
  }
};

/// Bytes of the rounded form of `rows` rows.
inline int64_t x8_bytes(int64_t rows, int64_t columns, Rounding rounding) {
  const int64_t planes = rounding == Rounding::int16 ? 2 : 1, windows = (columns + kWindow - 1) / kWindow;
  return rows * (planes * columns + columns / 32 * 12 + columns / 16 * 4 +
                 (rounding == Rounding::refined) * windows * 20);
}

}  // namespace plumb
