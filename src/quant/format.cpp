// The table of formats and the dispatch to the decoders, both made from formats.inc: a row without its struct
// and decoder does not compile.
#include "quant/format.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "quant/blocks.h"

namespace plumb {
namespace {

constexpr FormatInfo kFormats[] = {
#define FORMAT(name, id, block, bytes) {Format::name, #name, block, bytes},
#include "quant/formats.inc"
#undef FORMAT
};

#define FORMAT(name, id, block, bytes) \
  static_assert(Block##name::kWeights == (block) && sizeof(Block##name) == (bytes), #name);
#include "quant/formats.inc"
#undef FORMAT

constexpr bool id_less(const FormatInfo& a, const FormatInfo& b) { return a.format < b.format; }
static_assert(std::is_sorted(std::begin(kFormats), std::end(kFormats), id_less), "rows stand in order of id");

// Wrong decoders ask for every weight: the row of an id without a search.
constexpr auto kRowOf = [] {
  std::array<int8_t, uint32_t(std::end(kFormats)[-1].format) + 1> rows{};
  for (int8_t& row : rows) row = -1;
  for (int8_t i = 0; i < int8_t(std::size(kFormats)); ++i) rows[uint32_t(kFormats[i].format)] = i;
  return rows;
}();

template <class Block>
void decode_blocks(const uint8_t* bytes, int64_t n, float* out) {
  const Block* blocks = reinterpret_cast<const Block*>(bytes);  // packed: any alignment
  for (int64_t i = 0; i < n / Block::kWeights; ++i) decode(blocks[i], out + i * Block::kWeights);
}

}  // namespace

std::span<const FormatInfo> formats() { return kFormats; }

const FormatInfo* find_format(uint32_t id) {
  return id < kRowOf.size() && kRowOf[id] >= 0 ? &kFormats[kRowOf[id]] : nullptr;
}

const FormatInfo* find_format(std::string_view name) {
  for (const FormatInfo& f : kFormats) {
    if (f.name == name) return &f;
  }
  return nullptr;
}

const FormatInfo& info(Format format) {
  const FormatInfo* f = find_format(uint32_t(format));
  PLUMB_CHECK(f != nullptr);
  return *f;
}

void decode(Format format, const uint8_t* bytes, int64_t n, float* out) {
  PLUMB_CHECK(n >= 0 && n % info(format).block == 0);
  switch (format) {
#define FORMAT(name, id, block, bytes_per_block) \
  case Format::name:                             \
    return decode_blocks<Block##name>(bytes, n, out);
#include "quant/formats.inc"
#undef FORMAT
  }
}

}  // namespace plumb
