// What `plumb diagnose` says, as text of about ten lines, as JSON and as a page.
#pragma once

#include <string>
#include <vector>

#include "app/report_page.h"
#include "trace/next.h"

namespace plumb {

using Next = std::vector<trace::NextMeasurement>;

/// `next`: null where it was not asked for.
std::string diagnosis_text(const trace::Diagnosis& d, const Next* next);
Json diagnosis_json(const trace::Diagnosis& d, const Next* next);

/// All numbers as the best candidate has them, and as a right engine would.
Report diagnosis_page(const trace::Diagnosis& d, const Next* next, const trace::DiagnoseRequest& request);

}  // namespace plumb
