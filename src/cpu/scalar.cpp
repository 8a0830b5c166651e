// The kernels of scalar: instantiations only.
#include "cpu/simd/scalar.h"
//
#include "cpu/attention_impl.h"
#include "cpu/kv_store_impl.h"
#include "cpu/linear/linear.h"
#include "cpu/quantise_impl.h"
#include "cpu/rows_impl.h"

namespace plumb {

const Kernels& scalar_kernels() {
  using V = Scalar;
  static constexpr Kernels kKernels = {Isa::scalar, scalar_matmul, row<V>,       head<V>,
                                       store_k<V>,  store_v<V>,    attention<V>, attention_merge<V>,
                                       glu<V>,      add<V>,        quantise<V>};
  return kKernels;
}

}  // namespace plumb
