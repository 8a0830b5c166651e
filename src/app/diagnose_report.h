// What `plumb diagnose` says, as text of about ten lines and as JSON.
#pragma once

#include <string>

#include "trace/diagnose.h"

namespace plumb {

std::string diagnosis_text(const trace::Diagnosis& d);
Json diagnosis_json(const trace::Diagnosis& d);

}  // namespace plumb
