// The kernels of neon: instantiations only.
#include "cpu/simd/neon.h"
//
#include "cpu/attention_impl.h"
#include "cpu/kv_store_impl.h"
#include "cpu/linear/linear.h"
#include "cpu/quantise_impl.h"
#include "cpu/rows_impl.h"

namespace plumb {

const Kernels& neon_kernels() {
  using V = Neon;
  static constexpr Kernels kKernels = {Isa::neon,  neon_matmul, row<V>,       head<V>,
                                       store_k<V>, store_v<V>,  attention<V>, attention_merge<V>,
                                       glu<V>,     add<V>,      quantise<V>};
  return kKernels;
}

}  // namespace plumb
