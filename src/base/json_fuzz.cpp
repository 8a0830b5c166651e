// libFuzzer target: any bytes as JSON text; what is accepted must read the same when it is written and parsed
// again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const std::string written = plumb::dump(plumb::parse_json(text, "fuzz"));
    if (plumb::dump(plumb::parse_json(written, "again")) != written) std::abort();
  } catch (const plumb::Error& e) {
    if (!e.code().starts_with("json.") || e.where().offset < 0 || e.expected().empty() || e.found().empty())
      std::abort();
  }
  return 0;
}
