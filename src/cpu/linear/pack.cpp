// Packing of weights, once per format for all instruction sets.
#include <cstring>

#include "cpu/linear/linear.h"
#include "cpu/linear/packed.h"
#include "cpu/linear/packed_k.h"

namespace plumb {
namespace {

// [columns][16] of 2 or 4 bytes.
template <class T>
struct PackedFloats {
  static int64_t group_bytes(int columns) { return int64_t(columns) * 16 * int64_t(sizeof(T)); }
  static void pack(const uint8_t* const* rows, int columns, uint8_t* out) {
    T* to = reinterpret_cast<T*>(out);
    for (int r = 0; r < 16; ++r) {
      if (!rows[r]) continue;
      for (int k = 0; k < columns; ++k)
        std::memcpy(&to[k * 16 + r], rows[r] + k * int64_t(sizeof(T)), sizeof(T));
    }
  }
};

// Calls `use` with a value of the packing struct of the format; false where there is none.
template <class Use>
bool with_packing(Format format, Use use) {
  switch (format) {
    case Format::Q4_0:
      use(PackedQ4_0());
      return true;
    case Format::Q4_1:
      use(PackedQ4_1());
      return true;
    case Format::Q5_0:
      use(PackedQ5_0());
      return true;
    case Format::Q5_1:
      use(PackedQ5_1());
      return true;
    case Format::Q8_0:
      use(PackedQ8_0());
      return true;
    case Format::Q2_K:
      use(PackedQ2_K());
      return true;
    case Format::Q3_K:
      use(PackedQ3_K());
      return true;
    case Format::Q4_K:
      use(PackedQ4_K());
      return true;
    case Format::Q5_K:
      use(PackedQ5_K());
      return true;
    case Format::Q6_K:
      use(PackedQ6_K());
      return true;
    case Format::IQ4_NL:
      use(PackedIQ4_NL());
      return true;
    case Format::IQ4_XS:
      use(PackedIQ4_XS());
      return true;
    case Format::MXFP4:
      use(PackedMXFP4());
      return true;
    case Format::F16:
    case Format::BF16:
      use(PackedFloats<uint16_t>());
      return true;
    case Format::F32:
      use(PackedFloats<uint32_t>());
      return true;
    default:
      return false;
  }
}

}  // namespace

int64_t packed_group_bytes(Format format, int columns) {
  int64_t bytes = 0;
  with_packing(format, [&](auto packing) { bytes = packing.group_bytes(columns); });
  return bytes;
}

void pack_group(Format format, const uint8_t* const* rows, int columns, uint8_t* out) {
  with_packing(format, [&](auto packing) {
    std::memset(out, 0, size_t(packing.group_bytes(columns)));
    packing.pack(rows, columns, out);
  });
}

}  // namespace plumb
