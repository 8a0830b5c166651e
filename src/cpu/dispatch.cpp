// The kernels of an instruction set.
#include "base/error.h"
#include "cpu/kernels.h"

namespace plumb {

const Kernels& kernels(Isa isa) {
  PLUMB_CHECK(supported(isa));
#if defined(__x86_64__)
  if (isa == Isa::avx512) return avx512_kernels();
  if (isa == Isa::avx2) return avx2_kernels();
#elif defined(__aarch64__)
  if (isa == Isa::neon) return neon_kernels();
#endif
  return scalar_kernels();
}

}  // namespace plumb
