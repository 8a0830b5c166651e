#include "trace/codes.h"

#include <cstring>
#include <map>
#include <span>
#include <vector>

namespace plumb::trace {
namespace {

// Where a weight's code has its bits: `bits` of byte `byte` from `shift` on.
struct Bits {
  int byte, shift, bits;
};
struct Place {
  Bits low, high = {-1, 0, 0};
};

Place nibble32(int qs, int i) { return {{qs + i % 16, i / 16 * 4, 4}}; }

Place place(Format format, int i) {
  const int half = i / 128, in = i % 128;
  switch (format) {
    case Format::Q4_0:
    case Format::IQ4_NL:
      return nibble32(2, i);
    case Format::Q4_1:
      return nibble32(4, i);
    case Format::MXFP4:
      return nibble32(1, i);
    case Format::Q5_0:
      return {nibble32(6, i).low, {2 + i / 8, i % 8, 1}};
    case Format::Q5_1:
      return {nibble32(8, i).low, {4 + i / 8, i % 8, 1}};
    case Format::Q8_0:
      return {{2 + i, 0, 8}};
    case Format::Q2_K:
      return {{16 + half * 32 + i % 32, in / 32 * 2, 2}};
    case Format::Q3_K:
      return {{32 + half * 32 + i % 32, in / 32 * 2, 2}, {i % 32, i / 32, 1}};
    case Format::Q4_K:
      return {{16 + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4}};
    case Format::Q5_K:
      return {{48 + i / 64 * 32 + i % 32, i / 32 % 2 * 4, 4}, {16 + i % 32, i / 32, 1}};
    case Format::Q6_K:
      return {{half * 64 + i % 64, in / 64 * 4, 4}, {128 + half * 32 + i % 32, in / 32 * 2, 2}};
    default:
      return {{0, 0, 0}};
  }
}

// Of all weights of a block.
std::span<const Place> places(Format format) {
  static const auto kAll = [] {
    std::map<Format, std::vector<Place>> all;
    for (const FormatInfo& f : formats()) {
      for (int i = 0; i < f.block; ++i) all[f.format].push_back(place(f.format, i));
    }
    return all;
  }();
  return kAll.at(format);
}

int get(const uint8_t* block, const Bits& b) {
  return b.bits == 0 ? 0 : block[b.byte] >> b.shift & ((1 << b.bits) - 1);
}

void put(uint8_t* block, const Bits& b, int value) {
  if (b.bits == 0) return;
  const int mask = ((1 << b.bits) - 1) << b.shift;
  block[b.byte] = uint8_t((block[b.byte] & ~mask) | (value << b.shift & mask));
}

}  // namespace

bool has_codes(Format format) { return place(format, 0).low.bits > 0; }

void codes_of(Format format, const uint8_t* block, int* codes) {
  for (const Place& p : places(format)) *codes++ = get(block, p.low) | get(block, p.high) << p.low.bits;
}

void set_codes(Format format, const int* codes, uint8_t* block) {
  for (const Place& p : places(format)) {
    put(block, p.low, *codes);
    put(block, p.high, *codes++ >> p.low.bits);
  }
}

ScalePlaces scales_of(Format format) {
  switch (format) {
    case Format::Q4_0:
    case Format::Q5_0:
    case Format::Q8_0:
    case Format::IQ4_NL:
    case Format::IQ4_XS:
    case Format::IQ2_XXS:
    case Format::IQ2_XS:
    case Format::IQ2_S:
    case Format::IQ3_XXS:
    case Format::IQ3_S:
    case Format::IQ1_S:
      return {0, -1};
    case Format::Q4_1:
    case Format::Q5_1:
    case Format::Q4_K:
    case Format::Q5_K:
      return {0, 2};
    case Format::Q2_K:
      return {80, 82};
    case Format::Q3_K:
      return {108, -1};
    case Format::Q6_K:
      return {208, -1};
    default:
      return {};
  }
}

void pack_scales_k4(const int* scales, const int* mins, uint8_t* packed) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = uint8_t(scales[j] | scales[j + 4] >> 4 << 6);
    packed[4 + j] = uint8_t(mins[j] | mins[j + 4] >> 4 << 6);
    packed[8 + j] = uint8_t((scales[j + 4] & 15) | (mins[j + 4] & 15) << 4);
  }
}

}  // namespace plumb::trace
