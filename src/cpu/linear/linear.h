// Matrix kernels by instruction set, and the packing that they read.
#pragma once

#include "cpu/kernels.h"

namespace plumb {

Matmul scalar_matmul(Format format) noexcept;
Matmul avx2_matmul(Format format) noexcept;
Matmul avx512_matmul(Format format) noexcept;
Matmul neon_matmul(Format format) noexcept;

/// Of the layout that pack_group writes; a file of packed weights is good for one version only.
constexpr int kPackedVersion = 1;

/// Bytes of one group of 16 rows as packed; 0 for formats that stay as they are and are decoded when used.
int64_t packed_group_bytes(Format format, int columns);

/// Packs the 16 rows whose bytes in the file are given (null past the end) into `out`, which need not be
/// cleared.
void pack_group(Format format, const uint8_t* const* rows, int columns, uint8_t* out);

}  // namespace plumb
