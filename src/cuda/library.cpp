#include "cuda/library.h"

#include <string_view>

#include "base/error.h"
#include "base/shared_library.h"

namespace plumb::cuda {
namespace {

constexpr const char* kName = "libplumb_cuda.so";

}  // namespace

const Api* find_library(std::string* why) {
  void* library = open_shared_library(kName, false, why);
  if (!library) return nullptr;
  const auto entry = reinterpret_cast<const Api* (*)()>(find_symbol(library, "plumb_cuda_api"));
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
