// What the tests of trace/check.h found, for people, for programs and as an exit status.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "trace/check.h"

namespace plumb {

std::string findings_text(const std::vector<trace::Finding>& findings);
Json findings_json(const std::vector<trace::Finding>& findings);
int findings_status(const std::vector<trace::Finding>& findings);

}  // namespace plumb
