#include "cuda/library.h"

#include <dlfcn.h>

#include <filesystem>
#include <string_view>

#include "base/error.h"

namespace plumb::cuda {
namespace {

constexpr const char* kName = "libplumb_cuda.so";

// Beside the program, then wherever the system's loader looks.
void* open_library(std::string* why) {
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const auto beside = program.parent_path() / kName;
  if (!ignored && std::filesystem::exists(beside, ignored)) {
    if (void* library = dlopen(beside.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  } else if (void* library = dlopen(kName, RTLD_NOW | RTLD_LOCAL)) {
    return library;
  }
  const char* error = dlerror();
  *why = error ? error : std::string(kName) + " was not found";
  return nullptr;
}

}  // namespace

const Api* find_library(std::string* why) {
  void* library = open_library(why);
  if (!library) return nullptr;
  const auto entry = reinterpret_cast<const Api* (*)()>(dlsym(library, "plumb_cuda_api"));
  if (!entry || entry()->version != kApiVersion) {
    *why = std::string(kName) + " belongs to another version of plumb";
    return nullptr;
  }
  int devices = 0;
  if (const char* error = entry()->count(&devices)) {
    *why = error;
    return nullptr;
  }
  if (devices == 0) {
    *why = "no CUDA device";
    return nullptr;
  }
  return entry();
}

void check(const char* error, const std::string& doing) {
  if (!error) return;
  const bool memory = std::string_view(error).find("memory") != std::string_view::npos &&
                      std::string_view(error).find("illegal") == std::string_view::npos;
  throw Error({.code = memory ? "memory.device" : "cuda.failed",
               .expected = doing,
               .found = error,
               .remedy = memory ? "lower -c, or run it with --backend cpu" : ""});
}

}  // namespace plumb::cuda
