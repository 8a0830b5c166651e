#include "base/shared_library.h"

#include <dlfcn.h>

#include <filesystem>

namespace plumb {

void* open_shared_library(const char* name, bool for_others, std::string* why) {
  const int flags = RTLD_NOW | (for_others ? RTLD_GLOBAL : RTLD_LOCAL);
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const auto beside = program.parent_path() / name;
  const bool is_beside = !ignored && std::filesystem::exists(beside, ignored);
  if (void* library = dlopen(is_beside ? beside.c_str() : name, flags)) return library;
  const char* error = dlerror();
  *why = error ? error : std::string(name) + " was not found";
  return nullptr;
}

void* find_symbol(void* library, const char* name) { return dlsym(library, name); }

}  // namespace plumb
