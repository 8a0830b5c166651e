// Activations in int8: how the rows of a call lie in memory (formulas: docs/numerics.md).
//
// Blocks of 32 elements have a scale; an element is a code q of 15 bits, q = 254 high + low, kept in two
// planes of int8 so that integer multipliers take them. Every 16 codes have their exact sum. The n tokens of
// a call are cut into tiles of at most six, as equal as possible; within a tile of N tokens the groups of
// four codes lie side by side, [columns / 4][N][4], for either plane, then scales [columns / 32][N] and sums
// [columns / 16][N], because a matrix tile multiplies one line of weights with all N.
#pragma once

#include <cstdint>

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
/// The largest |q|: 127 * 254 + 126, so that q / 254 still rounds to 127.
constexpr int kLargestCode = 32384;

struct X8 {
  int8_t* high = nullptr;   // [n][columns], by tiles
  int8_t* low = nullptr;    // alike
  float* scales = nullptr;  // [n][columns / 32]
  int32_t* sums = nullptr;  // [n][columns / 16]

  X8() = default;
  /// Over x8_bytes(capacity, columns) bytes.
  X8(uint8_t* memory, int capacity, int columns)
      : high(reinterpret_cast<int8_t*>(memory)),
        low(high + int64_t(capacity) * columns),
        scales(reinterpret_cast<float*>(low + int64_t(capacity) * columns)),
        sums(reinterpret_cast<int32_t*>(scales + int64_t(capacity) * (columns / 32))) {}
};

}  // namespace plumb
