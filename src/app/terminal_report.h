// Reports of the instrument on a terminal: lines wrapped to its width, verdicts in colour. Into a pipe or a
// file they go as they are.
#pragma once

#include <string>
#include <string_view>

namespace plumb {

/// Lines are a head of `indent` columns and a text, which is continued under itself where there is room for
/// that, else indented by two. Words such as DIVERGES and holds at the start of a line are coloured.
std::string fitted(std::string_view report, size_t indent, size_t columns, bool colour);

/// To standard output, fitted where that is a terminal; NO_COLOR turns colours off. https://no-color.org
void print_report(std::string_view report, size_t indent);

}  // namespace plumb
