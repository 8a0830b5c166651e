// The numbers of an answer by name, with their ranges: what `/set`, a configuration and a request's fields
// may change. One table, so that every door has the same names and bounds.
#pragma once

#include <span>
#include <string_view>

#include "engine/generate.h"

namespace plumb {

struct Setting {
  std::string_view name;  // as llama.cpp's server spells it
  double min, max;
  bool whole;  // takes integers only
};

/// All of them, in the order in which they should be shown.
std::span<const Setting> settings();

/// The setting of that name or of one of its other spellings (max_tokens, repetition_penalty), or null.
const Setting* find_setting(std::string_view name);

double setting_value(const GenerateOptions& options, const Setting& setting);

/// Throws Error "setting.value" (where.key is the name) for what is out of range or not whole.
void set_setting(GenerateOptions& options, const Setting& setting, double value);

}  // namespace plumb
