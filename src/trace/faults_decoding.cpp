// B: what the bytes of quantised blocks mean. Most faults are a change of a block's bytes after which the
// right decoder gives the wrong weights, so a file can carry them in its own format.
#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "base/half.h"
#include "quant/iq4_nl.h"
#include "quant/q4_k.h"
#include "trace/codes.h"
#include "trace/edits.h"

namespace plumb::trace {
namespace {

using Formats = std::vector<Format>;
using BlockBytes = std::function<void(Format, uint8_t* block)>;
using BlockFloats = std::function<void(Format, const uint8_t* block, float* out)>;
using RowFloats = std::function<void(const WeightRef&, int64_t row, float* out)>;
/// All bytes of a row, where neighbours matter; `in` is the row as stored, with the row before it in front.
using RowChange = std::function<void(const WeightRef&, int64_t row, const uint8_t* in, uint8_t* out)>;

const Formats kNibbles = {Format::Q4_0, Format::Q4_1, Format::IQ4_NL, Format::MXFP4};
const Formats kFives = {Format::Q5_0, Format::Q5_1};
const Formats kK45 = {Format::Q4_K, Format::Q5_K};
const Formats kWithScale = {Format::Q4_0,   Format::Q5_0, Format::Q8_0, Format::Q4_1,
                            Format::Q5_1,   Format::Q4_K, Format::Q5_K, Format::Q6_K,
                            Format::IQ4_NL, Format::Q2_K, Format::Q3_K};
const Formats kPermuted = {Format::Q4_0, Format::Q4_1, Format::IQ4_NL, Format::MXFP4, Format::Q5_0,
                           Format::Q5_1, Format::Q4_K, Format::Q5_K,   Format::Q6_K};
const Formats kSigns = {Format::IQ2_XXS, Format::IQ2_XS, Format::IQ2_S, Format::IQ3_XXS, Format::IQ3_S};

bool holds(const Formats& formats, Format f) {
  return std::find(formats.begin(), formats.end(), f) != formats.end();
}

std::string no_format(const Formats& formats) {
  std::string names;
  for (Format f : formats) names += (names.empty() ? "" : ", ") + std::string(info(f).name);
  return "no tensor is " + names;
}

// Rows of the weights of these formats from changed bytes of their own format. A change that looks at one row
// alone is made after those made before.
Edit rows(Formats formats, std::string list, RowChange change, bool alone = false) {
  return [=](Variant& v, double) -> std::string {
    bool any = false;
    for (Weight i : weights_of(v, list)) {
      WeightRef& w = v.program.weights[size_t(i)];
      if (!holds(formats, w.format) || w.data == nullptr) continue;
      const auto at = v.row_bytes.find(w.name);
      const Variant::RowBytes before = alone && at != v.row_bytes.end() ? at->second : Variant::RowBytes();
      const Variant::RowBytes bytes = [=](const WeightRef& ref, int64_t row, uint8_t* out) {
        const int64_t n = row_bytes(ref.format, ref.columns);
        if (!before) return change(ref, row, ref.data + row * n, out);
        std::vector<uint8_t> raw(static_cast<size_t>(n));
        before(ref, row, raw.data());
        change(ref, row, raw.data(), out);
      };
      w.read = [bytes](const WeightRef& ref, int64_t row, float* out) {
        std::vector<uint8_t> raw(size_t(row_bytes(ref.format, ref.columns)));
        bytes(ref, row, raw.data());
        decode(ref.format, raw.data(), ref.columns, out);
      };
      v.row_bytes[w.name] = bytes, any = true;
    }
    return any ? "" : no_format(formats);
  };
}

Edit blocks(Formats formats, std::string list, BlockBytes change) {
  const auto row = [change](const WeightRef& w, int64_t, const uint8_t* in, uint8_t* out) {
    const int64_t bytes = info(w.format).bytes, n = row_bytes(w.format, w.columns);
    std::copy_n(in, n, out);
    for (int64_t at = 0; at < n; at += bytes) change(w.format, out + at);
  };
  return rows(formats, list, row, true);
}

// Rows of such weights as numbers that no block of their format may hold.
Edit floats(Formats formats, RowFloats read) {
  return [=](Variant& v, double) -> std::string {
    bool any = false;
    for (WeightRef& w : v.program.weights) {
      if (!holds(formats, w.format) || w.data == nullptr) continue;
      w.read = read, any = true;
      v.row_bytes.erase(w.name);
    }
    return any ? "" : no_format(formats);
  };
}

Edit decoded(Formats formats, BlockFloats change) {
  return floats(formats, [change](const WeightRef& w, int64_t row, float* out) {
    const FormatInfo& f = info(w.format);
    const uint8_t* in = w.data + row * row_bytes(w.format, w.columns);
    for (int64_t c = 0; c < w.columns; c += f.block, in += f.bytes) change(w.format, in, out + c);
  });
}

// Code i of a block is what stands at source(format, i).
using CodeSource = std::function<int(Format, int)>;
BlockBytes codes(CodeSource source) {
  return [=](Format f, uint8_t* block) {
    int right[256], wrong[256];
    codes_of(f, block, right);
    for (int i = 0, n = info(f).block; i < n; ++i) wrong[i] = right[source(f, i)];
    set_codes(f, wrong, block);
  };
}
BlockBytes codes_back(CodeSource source) {
  return [=](Format f, uint8_t* block) {
    int right[256], wrong[256];
    codes_of(f, block, right);
    for (int i = 0, n = info(f).block; i < n; ++i) wrong[source(f, i)] = right[i];
    set_codes(f, wrong, block);
  };
}
BlockBytes each_code(std::function<int(int)> change) {
  return [=](Format f, uint8_t* block) {
    int all[256];
    codes_of(f, block, all);
    for (int i = 0, n = info(f).block; i < n; ++i) all[i] = change(all[i]);
    set_codes(f, all, block);
  };
}

int low_bits(Format f) {
  return f == Format::Q5_0 || f == Format::Q5_1 || f == Format::Q5_K || f == Format::Q6_K ? 4 : 8;
}

// Only the bits above the nibble, or only the nibble, come from elsewhere.
BlockBytes part_of_codes(bool high, CodeSource source, bool back = false) {
  return [=](Format f, uint8_t* block) {
    int right[256], wrong[256];
    codes_of(f, block, right);
    const int mask = high ? ~0 << low_bits(f) : (1 << low_bits(f)) - 1;
    std::copy_n(right, info(f).block, wrong);
    for (int i = 0, n = info(f).block; i < n; ++i) {
      const int to = back ? source(f, i) : i, from = back ? i : source(f, i);
      wrong[to] = (wrong[to] & ~mask) | (right[from] & mask);
    }
    set_codes(f, wrong, block);
  };
}

int neighbours(Format, int i) { return i / 2 + i % 2 * 16; }
int halves_exchanged(Format, int i) { return i ^ 16; }
int neighbours_high_first(Format, int i) { return i / 2 + (1 - i % 2) * 16; }
int nibbles_in_sequence(Format, int i) { return i / 2 / 32 * 64 + i % 2 * 32 + i / 2 % 32; }
int fifth_in_sequence(Format, int i) { return i % 8 * 32 + i / 8; }

// Q6_K: element i from nibble i of ql and bit pair i of qh.
BlockBytes q6_in_sequence(bool back) {
  return [=](Format f, uint8_t* block) {
    int right[256], wrong[256] = {};
    codes_of(f, block, right);
    for (int i = 0; i < 256; ++i) {
      const int at = i % 128, half = i - at, byte = at / 2;
      const int low = half + byte + at % 2 * 64;     // the element whose nibble lies there
      const int high = half + at % 4 * 32 + at / 4;  // and whose bit pair
      if (back) {
        wrong[low] |= right[i] & 15, wrong[high] |= right[i] & 48;
      } else {
        wrong[i] = (right[low] & 15) | (right[high] & 48);
      }
    }
    set_codes(f, wrong, block);
  };
}

int in_sequence(Format f, int i) {
  if (f == Format::Q4_K || f == Format::Q5_K) return nibbles_in_sequence(f, i);
  if (f == Format::Q6_K) return i / 128 * 128 + i % 128 / 2 + i % 2 * 64;
  return neighbours(f, i);
}

uint16_t half_at(const uint8_t* p) { return uint16_t(p[0] | p[1] << 8); }
void put_half(uint8_t* p, uint16_t h) { p[0] = uint8_t(h), p[1] = uint8_t(h >> 8); }

// Scale and minimum, as their bits.
BlockBytes halves(std::function<uint16_t(uint16_t)> scale, std::function<uint16_t(uint16_t)> min) {
  return [=](Format f, uint8_t* block) {
    const ScalePlaces at = scales_of(f);
    if (at.scale >= 0 && scale) put_half(block + at.scale, scale(half_at(block + at.scale)));
    if (at.min >= 0 && min) put_half(block + at.min, min(half_at(block + at.min)));
  };
}
uint16_t zero(uint16_t) { return 0; }
uint16_t negated(uint16_t h) { return h ^ 0x8000u; }
uint16_t swapped(uint16_t h) { return uint16_t(h >> 8 | h << 8); }
uint16_t flushed(uint16_t h) { return h & 0x7c00u ? h : uint16_t(h & 0x8000u); }
uint16_t subnormal_halved(uint16_t h) {
  return h & 0x7c00u ? h : uint16_t((h & 0x8000u) | (h & 0x3ffu) >> 1);
}

// The block with its scales as bf16: decoded once for each of the two parts, which are linear in them.
void scale_as_bf16(Format f, const uint8_t* in, float* out) {
  const ScalePlaces at = scales_of(f);
  uint8_t block[256];
  std::copy_n(in, info(f).bytes, block);
  put_half(block + at.scale, 0x3c00);
  if (at.min >= 0) put_half(block + at.min, 0);
  decode(f, block, info(f).block, out);
  for (int i = 0, n = info(f).block; i < n; ++i) out[i] *= bfloat16_to_float(half_at(in + at.scale));
  if (at.min < 0) return;
  float min[256];
  put_half(block + at.scale, 0), put_half(block + at.min, 0x3c00);
  decode(f, block, info(f).block, min);
  for (int i = 0, n = info(f).block; i < n; ++i) out[i] += min[i] * bfloat16_to_float(half_at(in + at.min));
}

// d (q + offset) with the codes as they are.
BlockFloats plain_codes(float offset) {
  return [=](Format f, const uint8_t* in, float* out) {
    int q[256];
    codes_of(f, in, q);
    const float d = half_to_float(half_at(in + scales_of(f).scale));
    for (int i = 0, n = info(f).block; i < n; ++i) out[i] = d * (float(q[i]) + offset);
  };
}
// The right weights, plus d times an offset.
BlockFloats moved_codes(float offset) {
  return [=](Format f, const uint8_t* in, float* out) {
    decode(f, in, info(f).block, out);
    const float d = half_to_float(half_at(in + scales_of(f).scale));
    for (int i = 0, n = info(f).block; i < n; ++i) out[i] += d * offset;
  };
}

void header_of_two_bytes(Format f, uint8_t* block) {
  std::copy(block + 2, block + info(f).bytes - 2, block + 4);
}
void scale_and_min_exchanged(Format, uint8_t* block) { std::swap_ranges(block, block + 2, block + 2); }
void as_if_without_min(Format, uint8_t* block) {  // d (q - 8)
  put_half(block + 2, float_to_half(-8 * half_to_float(half_at(block))));
}
void header_not_skipped(Format f, uint8_t* block) {
  std::copy_backward(block, block + info(f).bytes - 2, block + info(f).bytes);
}

void q2_scale_lanes(Format, uint8_t* block) {
  uint8_t right[16];
  std::copy_n(block, 16, right);
  for (int g = 0; g < 16; ++g) block[g] = right[g % 2 * 8 + g / 2];
}
void q3_scales_of_four_bits(Format, uint8_t* block) {
  uint8_t* s = block + 96;
  for (int g = 0; g < 16; ++g) {
    const int low = s[g % 8] >> g / 8 * 4 & 15, code = low + 24;  // low - 8, as scale + 32
    s[g % 8] = uint8_t((s[g % 8] & (g / 8 ? 15 : 240)) | (code & 15) << g / 8 * 4);
    const int shift = g / 4 * 2;
    s[8 + g % 4] = uint8_t((s[8 + g % 4] & ~(3 << shift)) | code >> 4 << shift);
  }
}
void q3_high_bit_inverted(Format, uint8_t* block) {
  for (int i = 0; i < 32; ++i) block[i] = uint8_t(~block[i]);
}
void k4_scales_unpacked_plainly(Format, uint8_t* block) {
  int scales[8], mins[8];
  for (int j = 0; j < 8; ++j) scales[j] = block[4 + j] & 63, mins[j] = block[4 + std::min(j + 4, 11)] & 63;
  pack_scales_k4(scales, mins, block + 4);
}
void k4_scale_and_min_exchanged(Format, uint8_t* block) {
  int scales[8], mins[8];
  for (int j = 0; j < 8; ++j) {
    const ScaleMin sm = scale_min_k4(block + 4, j);
    scales[j] = sm.min, mins[j] = sm.scale;
  }
  pack_scales_k4(scales, mins, block + 4);
}
void q6_first_quarters_only(Format f, uint8_t* block) {
  int q[256];
  codes_of(f, block, q);
  for (int i = 0; i < 256; ++i) q[i] = i % 128 < 32 ? q[i] : 32;
  set_codes(f, q, block);
}
void q6_scales_by_pairs(Format, uint8_t* block) {
  uint8_t right[16];
  std::copy_n(block + 192, 16, right);
  for (int g = 0; g < 16; ++g) block[192 + g] = right[g / 2];
}
void q6_scales_unsigned(Format f, const uint8_t* in, float* out) {
  decode(f, in, 256, out);
  for (int i = 0; i < 256; ++i) {
    const int8_t s = int8_t(in[192 + i / 16]);
    if (s < 0) out[i] *= float(uint8_t(s)) / float(s);
  }
}
void q6_without_offset(Format f, const uint8_t* in, float* out) {
  int q[256];
  codes_of(f, in, q);
  const float d = half_to_float(half_at(in + 208));
  for (int i = 0; i < 256; ++i) out[i] = d * float(int8_t(in[192 + i / 16])) * float(q[i]);
}
void even_steps(Format, const uint8_t* in, float* out) {
  int q[32];
  codes_of(Format::IQ4_NL, in, q);
  const float d = half_to_float(half_at(in));
  for (int i = 0; i < 32; ++i) out[i] = d * float(q[i] * 16 - 120);
}
void signs_lost(Format f, const uint8_t* in, float* out) {
  decode(f, in, info(f).block, out);
  for (int i = 0, n = info(f).block; i < n; ++i) out[i] = std::abs(out[i]);
}

// The scale, or the whole header, of the block before in the order of the tensor.
RowChange of_previous(bool min) {
  return [=](const WeightRef& w, int64_t row, const uint8_t* in, uint8_t* out) {
    const int64_t bytes = info(w.format).bytes, n = row_bytes(w.format, w.columns);
    const ScalePlaces places = scales_of(w.format);
    std::copy_n(in, n, out);
    for (const int at : {places.scale, min ? places.min : -1})
      for (int64_t b = row > 0 ? 0 : bytes; at >= 0 && b < n; b += bytes)
        std::copy_n(in + b - bytes + at, 2, out + b + at);
  };
}
void scale_of_row(const WeightRef& w, int64_t, const uint8_t* in, uint8_t* out) {
  const int64_t bytes = info(w.format).bytes, n = row_bytes(w.format, w.columns);
  const int at = scales_of(w.format).scale;
  std::copy_n(in, n, out);
  for (int64_t b = 0; b < n; b += bytes) std::copy_n(in + at, 2, out + b + at);
}
// Blocks believed to be some bytes shorter.
void short_stride(const WeightRef& w, int64_t row, const uint8_t*, uint8_t* out) {
  const int64_t bytes = info(w.format).bytes, per_row = w.columns / info(w.format).block;
  const int64_t stride = w.format == Format::Q2_K ? 72 : w.format == Format::Q3_K ? 104 : bytes - 2;
  for (int64_t b = 0; b < per_row; ++b)
    std::copy_n(w.data + (row * per_row + b) * stride, bytes, out + b * bytes);
}

// A9: what the type is taken for.
Format mistaken(Format f) {
  switch (f) {
    case Format::Q4_1:
      return Format::Q4_0;
    case Format::Q5_1:
      return Format::Q5_0;
    case Format::Q5_0:
      return Format::Q4_1;
    case Format::Q8_0:
      return Format::Q5_1;
    case Format::Q4_0:
      return Format::MXFP4;
    case Format::Q4_K:
      return Format::Q3_K;
    case Format::Q5_K:
      return Format::Q4_K;
    case Format::Q6_K:
      return Format::Q5_K;
    case Format::F16:
      return Format::BF16;
    case Format::BF16:
      return Format::F16;
    default:
      return f;
  }
}
const Formats kMistaken = {Format::Q4_1, Format::Q5_1, Format::Q5_0, Format::Q8_0, Format::Q4_0,
                           Format::Q4_K, Format::Q5_K, Format::Q6_K, Format::F16,  Format::BF16};
void wrong_type(const WeightRef& w, int64_t row, float* out) {
  const Format f = mistaken(w.format);
  decode(f, w.data + row * row_bytes(f, w.columns), w.columns, out);
}

std::string truncated_to_bf16(Variant& v, double) {
  return read_changed(v, "token_embd attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down head",
                      [](float x) { return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffff0000u); });
}

std::string bytes_of_floats_swapped(Variant& v, double) {
  bool any = false;
  for (WeightRef& w : v.program.weights) {
    if (w.format != Format::F32) continue;
    w.read = [](const WeightRef& ref, int64_t row, float* out) {
      decode(ref.format, ref.data + row * ref.columns * 4, ref.columns, out);
      for (int64_t c = 0; c < ref.columns; ++c)
        out[c] = std::bit_cast<float>(__builtin_bswap32(std::bit_cast<uint32_t>(out[c])));
    };
    v.row_bytes.erase(w.name), any = true;
  }
  return any ? "" : "no tensor is F32";
}

}  // namespace

void add_decoding_faults(std::vector<Fault>& all) {
  const std::vector<Fault> faults = {
#include "trace/faults_decoding.inc"
  };
  for (const Fault& f : faults) all.push_back(carried(f));
}

}  // namespace plumb::trace
