// The matrix kernels of scalar: instantiations only.
#include "cpu/simd/scalar.h"
//
#include "cpu/linear/linear.h"
#include "cpu/linear/linear_impl.h"

namespace plumb {

Matmul scalar_matmul(Format format) noexcept { return find_matmul<Scalar>(format); }

}  // namespace plumb
