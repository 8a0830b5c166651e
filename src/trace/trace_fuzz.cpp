// libFuzzer target: any bytes as a shard, and as an evidence file whose data are then read.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "trace/trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// Runs f; an Error must say where and what.
template <class F>
void guarded(F f) {
  try {
    f();
  } catch (const plumb::Error& e) {
    if (e.where().file.empty() || (e.expected().empty() && e.found().empty())) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exact size, so that a read past the end is found.
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[size]);
  if (size > 0) std::memcpy(copy.get(), data, size);
  guarded([&] {
    for (const plumb::trace::ShardTensor& t : plumb::trace::parse_shard({copy.get(), size}, "fuzz")) {
      unsigned sum = 0;
      for (uint8_t byte : t.bytes) sum += byte;
      if (sum > t.bytes.size() * 255) std::abort();
    }
  });
  guarded([&] {
    const std::string_view text(reinterpret_cast<const char*>(copy.get()), size);
    const plumb::trace::Trace t = plumb::trace::Trace::parse(text, "fuzz");
    for (const plumb::trace::Record& r : t.records()) {
      if (r.full()) t.rows(r, 0, r.tokens);
      plumb::dump(plumb::trace::to_json(r));
    }
  });
  return 0;
}
