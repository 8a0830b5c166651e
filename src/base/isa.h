// The instruction sets for which kernels exist, and which of them this processor can run.
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace plumb {

/// In ascending order of preference. avx512 means F, BW, DQ, VL, VBMI and VNNI together (Ice Lake, Zen 4 and
/// later); avx2 means AVX2, FMA and F16C; neon means ARM's with the dot product (armv8.2, and all of
/// armv8.4).
enum class Isa { scalar, avx2, avx512, neon };

const char* name(Isa isa);
std::optional<Isa> find_isa(std::string_view name);
bool supported(Isa isa);
Isa best_isa();

/// All of them, the weakest first.
std::span<const Isa> all_isas();

}  // namespace plumb
