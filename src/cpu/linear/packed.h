// Weights as the kernels read them: 16 rows interleaved, so that one 64-byte line holds 4 consecutive columns
// of each row and a multiplication needs no shuffle. Every format packs its own way, in about the bytes it
// has in the file.
//
// Each struct gives
//   kOffset   the code that means zero: value = scale * (code - kOffset) + min
//   kStep     32-column blocks that one visit covers; kSub: scales per block (1, or 2 of 16 columns); kMin:
//   has a min group_bytes(columns), pack(rows, columns, out)    rows: 16 pointers to rows as in the file,
//   null for rows past the end scales<V>, codes<V>                               of kStep blocks from block b
//   of a packed group; codes calls
//                                                     visit(block - b, columns / 4 in the block, line of
//                                                     codes)
// The lines of a group are read once, in ascending order: nothing else is followed by the hardware's
// prefetcher.
#pragma once

#include <cstdint>
#include <cstring>

namespace plumb {
namespace {

inline void copy(uint8_t* to, const uint8_t* from, int n) { std::memcpy(to, from, size_t(n)); }

enum class Codes { nibbles, five_bits, bytes };

/// The formats of 32-column blocks: [scales of kUnit blocks][mins] then per block [high bits][codes].
/// kScaleBytes: 2 (f16) or 1 (a power of two).
template <Codes kCodes, int kOffset_, bool kMin_, int kBlockBytes, int kScaleBytes, const uint8_t* kTable>
struct Legacy {
  static constexpr int kOffset = kOffset_, kStep = 1, kSub = 1;
  static constexpr bool kMin = kMin_;
  static constexpr int kUnit = kScaleBytes == 1 ? 4 : 2;  // blocks whose scales fill a line
  static constexpr int kHigh = kCodes == Codes::five_bits ? 64 : 0;
  static constexpr int kLines = kCodes == Codes::bytes ? 8 : 4;
  static constexpr int kPerBlock = kHigh + kLines * 64;
  static constexpr int kHead = kMin ? 128 : 64;
  static constexpr int kUnitBytes = kHead + kUnit * kPerBlock;

  static constexpr int64_t group_bytes(int columns) {
    return int64_t(columns / 32 + kUnit - 1) / kUnit * kUnitBytes;
  }

  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    for (int b = 0; b < columns / 32; ++b) {
      uint8_t* unit = out + b / kUnit * kUnitBytes;
      uint8_t* block = unit + kHead + b % kUnit * kPerBlock;
      for (int r = 0; r < 16; ++r) {
        if (!rows[r]) continue;
        const uint8_t* p = rows[r] + b * kBlockBytes;
        copy(unit + (b % kUnit * 16 + r) * kScaleBytes, p, kScaleBytes);
        p += kScaleBytes;
        if (kMin) copy(unit + 64 + (b % kUnit * 16 + r) * 2, p, 2), p += 2;
        if (kHigh) {
          uint32_t high;
          std::memcpy(&high, p, 4);
          for (int g = 0; g < 8; ++g) {  // bit 4 g + i moves to byte i, bit g
            for (int i = 0; i < 4; ++i)
              block[4 * r + i] = uint8_t(block[4 * r + i] | (high >> (4 * g + i) & 1) << g);
          }
          p += 4;
        }
        for (int v = 0; v < kLines; ++v) {
          uint8_t* line = block + kHigh + v * 64 + 4 * r;
          copy(line, p + 4 * v, 4);
          if (kCodes == Codes::bytes) {
            for (int i = 0; i < 4; ++i) line[i] ^= 128;
          }
        }
      }
    }
  }

  template <class V>
  static void scales(const uint8_t* g, int, int b, typename V::F (*s)[2], typename V::F (*m)[2]) {
    const uint8_t* unit = g + b / kUnit * kUnitBytes;
    if constexpr (kScaleBytes ==
                  1) {  // 2^(e - 128), the codes being doubled; 2^-128 and 2^-127 are subnormal
      const typename V::I e = V::from_u8(unit + b % kUnit * 16);
      const typename V::F two = V::from_bits(V::template shl32<23>(V::addi(e, V::set1i(-1))));
      const typename V::F low = V::mul(V::to_float(V::addi(e, V::set1i(1))), V::set1(0x1p-128f));
      s[0][0] = V::select_less(V::to_float(e), V::set1(2), low, two);
    } else {
      s[0][0] = V::from_half(unit + b % kUnit * 32);
    }
    if constexpr (kMin) m[0][0] = V::from_half(unit + 64 + b % kUnit * 32);
  }

  template <class V, class Visit>
  static void codes(const uint8_t* g, int, int b, Visit visit) {
    const uint8_t* p = g + b / kUnit * kUnitBytes + kHead + b % kUnit * kPerBlock;
    if constexpr (kCodes == Codes::bytes) {
      for (int v = 0; v < 8; ++v) visit(0, v, V::line(p + 64 * v));
    } else if constexpr (kCodes == Codes::five_bits) {
      five<V>(V::line(p), p + 64, 0, visit);
    } else {
      for (int v = 0; v < 4; ++v) {
        const typename V::B x = V::line(p + 64 * v);
        typename V::B low = V::andb(x, 15), high = V::andb(V::template shr<4>(x), 15);
        if constexpr (kTable != nullptr) low = V::lookup(kTable, low), high = V::lookup(kTable, high);
        visit(0, v, low);
        visit(0, v + 4, high);
      }
    }
  }

  // Bit g of a byte of h is bit 4 of the codes of column group g.
  template <class V, class Visit>
  static void five(typename V::B h, const uint8_t* p, int block, Visit visit) {
    const auto join = [](typename V::B nibbles, typename V::B bit) {
      return V::orb(V::andb(nibbles, 15), V::andb(bit, 16));
    };
    const auto both = [&](int v, typename V::B for_low, typename V::B for_high) {
      const typename V::B x = V::line(p + 64 * v);
      visit(block, v, join(x, for_low));
      visit(block, v + 4, join(V::template shr<4>(x), for_high));
    };
    both(0, V::template shl<4>(h), h);
    both(1, V::template shl<3>(h), V::template shr<1>(h));
    both(2, V::template shl<2>(h), V::template shr<2>(h));
    both(3, V::template shl<1>(h), V::template shr<3>(h));
  }
};

// Values as unsigned codes: IQ4_NL's table + 128; MXFP4's doubled values + 16.
constexpr uint8_t kIq4Codes[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
constexpr uint8_t kMxfp4Codes[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

using PackedQ4_0 = Legacy<Codes::nibbles, 8, false, 18, 2, nullptr>;
using PackedQ4_1 = Legacy<Codes::nibbles, 0, true, 20, 2, nullptr>;
using PackedQ5_0 = Legacy<Codes::five_bits, 16, false, 22, 2, nullptr>;
using PackedQ5_1 = Legacy<Codes::five_bits, 0, true, 24, 2, nullptr>;
using PackedQ8_0 = Legacy<Codes::bytes, 128, false, 34, 2, nullptr>;
using PackedIQ4_NL = Legacy<Codes::nibbles, 128, false, 18, 2, kIq4Codes>;
using PackedMXFP4 = Legacy<Codes::nibbles, 16, false, 17, 1, kMxfp4Codes>;

}  // namespace
}  // namespace plumb
