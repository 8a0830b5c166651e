// The kernels of avx512: instantiations only.
#include "cpu/simd/avx512.h"
//
#include "cpu/attention_impl.h"
#include "cpu/kv_store_impl.h"
#include "cpu/linear/linear.h"
#include "cpu/quantise_impl.h"
#include "cpu/rows_impl.h"

namespace plumb {

const Kernels& avx512_kernels() {
  using V = Avx512;
  static constexpr Kernels kKernels = {Isa::avx512, avx512_matmul, row<V>,       head<V>,
                                       store_k<V>,  store_v<V>,    attention<V>, attention_merge<V>,
                                       glu<V>,      add<V>,        quantise<V>};
  return kKernels;
}

}  // namespace plumb
