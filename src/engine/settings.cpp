#include "engine/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <variant>

#include "base/error.h"
#include "base/overload.h"

namespace plumb {
namespace {

using Member = std::variant<int GenerateOptions::*, double SamplerOptions::*, int SamplerOptions::*,
                            uint64_t SamplerOptions::*>;

constexpr double kManyIds = 1 << 30;
constexpr Setting kSettings[] = {
    {"temperature", 0, 1000, false},
    {"top_k", -1, kManyIds, true},
    {"top_p", 0, 1, false},
    {"min_p", 0, 1, false},
    {"repeat_penalty", 1e-3, 1000, false},
    {"repeat_last_n", -1, kManyIds, true},
    {"presence_penalty", -2, 2, false},
    {"frequency_penalty", -2, 2, false},
    {"typical_p", 0, 1, false},
    {"top_n_sigma", -1, 1000, false},
    {"xtc_probability", 0, 1, false},
    {"xtc_threshold", 0, 1, false},
    {"dry_multiplier", 0, 1000, false},
    {"dry_base", 0, 1000, false},
    {"dry_allowed_length", 0, kManyIds, true},
    {"dry_penalty_last_n", -1, kManyIds, true},
    {"dynatemp_range", 0, 1000, false},
    {"dynatemp_exponent", 0, 1000, false},
    {"mirostat", 0, 2, true},
    {"mirostat_tau", 0, 1000, false},
    {"mirostat_eta", 0, 1000, false},
    {"seed", 0, 0x1p53, true},
    {"n_predict", -1, kManyIds, true},
};
constexpr Member kMembers[] = {
    &SamplerOptions::temperature,
    &SamplerOptions::top_k,
    &SamplerOptions::top_p,
    &SamplerOptions::min_p,
    &SamplerOptions::repeat_penalty,
    &SamplerOptions::repeat_last_n,
    &SamplerOptions::presence_penalty,
    &SamplerOptions::frequency_penalty,
    &SamplerOptions::typical_p,
    &SamplerOptions::top_n_sigma,
    &SamplerOptions::xtc_probability,
    &SamplerOptions::xtc_threshold,
    &SamplerOptions::dry_multiplier,
    &SamplerOptions::dry_base,
    &SamplerOptions::dry_allowed_length,
    &SamplerOptions::dry_penalty_last_n,
    &SamplerOptions::dynatemp_range,
    &SamplerOptions::dynatemp_exponent,
    &SamplerOptions::mirostat,
    &SamplerOptions::mirostat_tau,
    &SamplerOptions::mirostat_eta,
    &SamplerOptions::seed,
    &GenerateOptions::n_predict,
};
static_assert(std::size(kSettings) == std::size(kMembers));

constexpr std::pair<std::string_view, std::string_view> kOtherNames[] = {
    {"temp", "temperature"},
    {"max_tokens", "n_predict"},
    {"max_completion_tokens", "n_predict"},
    {"repetition_penalty", "repeat_penalty"},
};

const Member& member_of(const Setting& setting) { return kMembers[&setting - kSettings]; }

}  // namespace

std::span<const Setting> settings() { return kSettings; }

const Setting* find_setting(std::string_view name) {
  for (const auto& [other, own] : kOtherNames) {
    if (name == other) name = own;
  }
  const auto* it = std::find_if(std::begin(kSettings), std::end(kSettings),
                                [&](const Setting& s) { return s.name == name; });
  return it == std::end(kSettings) ? nullptr : it;
}

double setting_value(const GenerateOptions& options, const Setting& setting) {
  return std::visit(Overload{[&](int GenerateOptions::* m) { return double(options.*m); },
                             [&](auto m) { return double(options.sampler.*m); }},
                    member_of(setting));
}

void set_setting(GenerateOptions& options, const Setting& setting, double value) {
  if (!(value >= setting.min && value <= setting.max) || (setting.whole && value != std::floor(value))) {
    throw Error({.code = "setting.value",
                 .expected = fmt::format("{} from {} to {}", setting.whole ? "a whole number" : "a number",
                                         setting.min, setting.max),
                 .found = fmt::format("{}", value),
                 .where = {.key = std::string(setting.name)}});
  }
  std::visit(Overload{[&](int GenerateOptions::* m) { options.*m = int(value); },
                      [&](double SamplerOptions::* m) { options.sampler.*m = value; },
                      [&](int SamplerOptions::* m) { options.sampler.*m = int(value); },
                      [&](uint64_t SamplerOptions::* m) { options.sampler.*m = uint64_t(value); }},
             member_of(setting));
}

}  // namespace plumb
