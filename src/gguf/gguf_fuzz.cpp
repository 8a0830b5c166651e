// libFuzzer target: any bytes as a GGUF file; what is accepted is walked in full and one row of each tensor
// decoded.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "gguf/test_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Starts from the files of the tests: an input too short to be one, and now and then any input, is replaced
// by one.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  static const std::vector<plumb::testing::Seed> kSeeds = plumb::testing::seeds();
  const plumb::testing::Bytes& start = kSeeds[seed / 64 % kSeeds.size()].parts.front();
  if ((size < 24 || seed % 64 == 0) && start.size() <= max_size) {
    std::memcpy(data, start.data(), start.size());
    size = start.size();
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exact size, so that a read past the end is found.
  const std::unique_ptr<uint8_t[]> copy(new uint8_t[size]);
  if (size > 0) std::memcpy(copy.get(), data, size);
  try {
    const plumb::Gguf g = plumb::Gguf::parse(std::span<const uint8_t>(copy.get(), size), "fuzz");
    if (!plumb::testing::walk(g)) std::abort();
    for (const plumb::GgufTensor& t : g.tensors()) {
      std::vector<float> row(size_t(t.columns()));
      plumb::decode(t.format, t.data, t.columns(), row.data());
    }
  } catch (const plumb::Error& e) {
    if (!plumb::testing::is_complete(e)) std::abort();
  }
  return 0;
}
