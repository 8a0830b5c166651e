// plumb_decode FORMAT: reads blocks of that format on standard input, writes the weights as raw f32 on
// standard output. A tool of the tests only: tests/quant_oracle_test.py compares its output with independent
// implementations.
#include <cstdio>
#include <exception>
#include <vector>

#include "base/error.h"
#include "quant/format.h"

namespace {

int run(int argc, char** argv) {
  const plumb::FormatInfo* f = argc == 2 ? plumb::find_format(std::string_view(argv[1])) : nullptr;
  if (f == nullptr) {
    throw plumb::Error({.code = "usage.format",
                        .expected = "plumb_decode FORMAT, one of formats.inc",
                        .found = argc == 2 ? plumb::printable(argv[1]) : "no format"});
  }
  std::vector<uint8_t> block(f->bytes);
  std::vector<float> weights(f->block);
  size_t n = 0;
  while ((n = std::fread(block.data(), 1, block.size(), stdin)) == block.size()) {
    plumb::decode(f->format, block.data(), f->block, weights.data());
    if (std::fwrite(weights.data(), sizeof(float), weights.size(), stdout) != weights.size()) return 1;
  }
  return n == 0 && std::fflush(stdout) == 0 ? 0 : 1;  // half a block is an error
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "plumb_decode: %s\n", e.what());
    return 2;
  }
}
