// What Tab offers: names of commands, their words, file names.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace plumb {

struct Completions {
  size_t begin = 0;                     // byte of the line where what is replaced begins
  std::vector<std::string> candidates;  // for the text from there on, sorted; folders end in '/'
};

/// For a line up to the cursor. `settings` are the names that /set knows; `home` stands for ~ and may be
/// null.
Completions complete(std::string_view line, std::span<const std::string> settings, const char* home);

/// The longest text that all begin with.
std::string common_prefix(std::span<const std::string> texts);

/// "~" and "~/x" with the user's home folder.
std::string expand_home(const std::string& path, const char* home);

}  // namespace plumb
