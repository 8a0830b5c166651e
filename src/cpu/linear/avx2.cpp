// The matrix kernels of avx2: instantiations only.
#include "cpu/simd/avx2.h"
//
#include "cpu/linear/linear.h"
#include "cpu/linear/linear_impl.h"

namespace plumb {

Matmul avx2_matmul(Format format) noexcept { return find_matmul<Avx2>(format); }

}  // namespace plumb
