#include "quant/encode.h"

#include "base/error.h"
#include "quant/encode_super.h"

namespace plumb {
namespace {

template <class Block>
void encode_blocks(const float* x, int64_t n, uint8_t* bytes) {
  for (int64_t i = 0; i < n; i += Block::kWeights, bytes += sizeof(Block)) {
    Block b;
    encoding::encode(x + i, b);
    std::memcpy(bytes, &b, sizeof b);
  }
}

using Encoder = void (*)(const float*, int64_t, uint8_t*);

Encoder encoder(Format format) {
  switch (format) {
#define ENCODER(name) \
  case Format::name:  \
    return encode_blocks<Block##name>;
    ENCODER(F32)
    ENCODER(F16)
    ENCODER(BF16)
    ENCODER(Q4_0)
    ENCODER(Q4_1)
    ENCODER(Q5_0)
    ENCODER(Q5_1)
    ENCODER(Q8_0)
    ENCODER(Q2_K)
    ENCODER(Q3_K)
    ENCODER(Q4_K)
    ENCODER(Q5_K)
    ENCODER(Q6_K)
    ENCODER(IQ4_NL)
    ENCODER(IQ4_XS)
    ENCODER(MXFP4)
#undef ENCODER
    default:
      return nullptr;
  }
}

}  // namespace

bool can_encode(Format format) { return encoder(format) != nullptr; }

void encode(Format format, const float* x, int64_t n, uint8_t* bytes) {
  const Encoder e = encoder(format);
  PLUMB_CHECK(e != nullptr && n % info(format).block == 0);
  e(x, n, bytes);
}

}  // namespace plumb
