// What the tests of trace/check.h found, for people, for programs and as an exit status.
#pragma once

#include <string>
#include <vector>

#include "trace/check.h"

namespace plumb {

/// Prints them, as JSON or as a report that ends with `after`.
void print_findings(const std::vector<trace::Finding>& findings, bool json, const std::string& after = "");
int findings_status(const std::vector<trace::Finding>& findings);

}  // namespace plumb
