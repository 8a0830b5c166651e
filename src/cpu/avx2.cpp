// The kernels of avx2: instantiations only.
#include "cpu/simd/avx2.h"
//
#include "cpu/attention_impl.h"
#include "cpu/kv_store_impl.h"
#include "cpu/linear/linear.h"
#include "cpu/quantise_impl.h"
#include "cpu/rows_impl.h"

namespace plumb {

const Kernels& avx2_kernels() {
  using V = Avx2;
  static constexpr Kernels kKernels = {Isa::avx2,  avx2_matmul, row<V>,       head<V>,
                                       store_k<V>, store_v<V>,  attention<V>, attention_merge<V>,
                                       glu<V>,     add<V>,      quantise<V>};
  return kKernels;
}

}  // namespace plumb
