// The matrix kernels of neon: instantiations only.
#include "cpu/simd/neon.h"
//
#include "cpu/linear/linear.h"
#include "cpu/linear/linear_impl.h"

namespace plumb {

Matmul neon_matmul(Format format) noexcept { return find_matmul<Neon>(format); }

}  // namespace plumb
