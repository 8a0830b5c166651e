// What `plumb diff` says, as text of about ten short lines and as JSON.
#pragma once

#include <string>

#include "trace/diff.h"

namespace plumb {

std::string diff_text(const trace::Diff& diff, const Model* model);
Json diff_json(const trace::Diff& diff, const Model* model);

/// A line of a report: what it is about in twelve columns, then the text.
std::string line(const char* head, const std::string& text);
/// A number as JSON has it; "nan", "inf" and "-inf" are texts.
Json finite(double x);

}  // namespace plumb
