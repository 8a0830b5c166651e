// What `plumb diff` says, as text of about ten short lines and as JSON.
#pragma once

#include <string>

#include "trace/diff.h"

namespace plumb {

std::string diff_text(const trace::Diff& diff, const Model* model);
Json diff_json(const trace::Diff& diff, const Model* model);

}  // namespace plumb
