// Libraries that the program opens at run time, so that it runs where they are not.
#pragma once

#include <string>

namespace plumb {

/// Opens `name` beside the program, or wherever the system's loader looks; null: *why says what is missing.
/// `for_others`: libraries that it opens itself see its names too.
void* open_shared_library(const char* name, bool for_others, std::string* why);

/// A function of it, or null.
void* find_symbol(void* library, const char* name);

}  // namespace plumb
