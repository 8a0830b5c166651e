#include "base/isa.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace plumb {
namespace {
constexpr Isa kAll[] = {Isa::scalar, Isa::avx2, Isa::avx512, Isa::neon};
}

const char* name(Isa isa) {
  switch (isa) {
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::neon:
      return "neon";
    case Isa::scalar:
      break;
  }
  return "scalar";
}

std::optional<Isa> find_isa(std::string_view name_) {
  for (Isa isa : kAll) {
    if (name(isa) == name_) return isa;
  }
  return std::nullopt;
}

bool supported(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
    case Isa::neon:
    case Isa::scalar:
      break;
  }
#elif defined(__aarch64__)
  constexpr unsigned long kDotProduct = 1 << 20;  // HWCAP_ASIMDDP of Linux
  if (isa == Isa::neon) return (getauxval(AT_HWCAP) & kDotProduct) != 0;
#endif
  return isa == Isa::scalar;
}

Isa best_isa() {
  Isa best = Isa::scalar;
  for (Isa isa : kAll) {
    if (supported(isa)) best = isa;
  }
  return best;
}

std::span<const Isa> all_isas() { return kAll; }

}  // namespace plumb
