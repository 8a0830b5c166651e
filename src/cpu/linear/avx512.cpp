// The matrix kernels of avx512: instantiations only.
#include "cpu/simd/avx512.h"
//
#include "cpu/linear/linear.h"
#include "cpu/linear/linear_impl.h"

namespace plumb {

Matmul avx512_matmul(Format format) noexcept { return find_matmul<Avx512>(format); }

}  // namespace plumb
