// The tensor table of a GGUF file: names, shapes, formats and where the bytes lie. After this every tensor is
// known to lie inside the file, aligned, with whole blocks in each row, and no two share a byte.
// Specification: ggml/docs/gguf.md, gguf_tensor_info_t.
#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "base/limits.h"
#include "gguf/part.h"

namespace plumb {
namespace {

struct Info {
  GgufTensor tensor;
  uint64_t offset = 0;   // within the data
  int64_t shape_at = 0;  // where in the file the entry says so
  int64_t offset_at = 0;
};

// Ids that are or were given out elsewhere; only for messages.
const char* foreign_format(uint32_t id) {
  switch (id) {
    case 4:
      return "Q4_2, removed";
    case 5:
      return "Q4_3, removed";
    case 9:
      return "Q8_1, not for files";
    case 15:
      return "Q8_K, not for files";
    case 24:
      return "I8";
    case 25:
      return "I16";
    case 26:
      return "I32";
    case 27:
      return "I64";
    case 31:
      return "Q4_0_4_4, removed";
    case 32:
      return "Q4_0_4_8, removed";
    case 33:
      return "Q4_0_8_8, removed";
    case 36:
      return "IQ4_NL_4_4, removed";
    case 37:
      return "IQ4_NL_4_8, removed";
    case 38:
      return "IQ4_NL_8_8, removed";
    case 40:
      return "NVFP4";
    case 41:
      return "Q1_0";
    case 42:
      return "Q2_0";
    default:
      return nullptr;
  }
}

[[noreturn]] void refuse_format(const Cursor& in, int64_t at, uint32_t id) {
  std::string expected = "a tensor type of";
  for (const FormatInfo& f : formats()) expected += fmt::format(" {}", f.name);
  const char* known = foreign_format(id);
  in.fail("gguf.tensor_type", at, std::move(expected),
          known ? fmt::format("{} ({})", id, known) : fmt::format("{}", id));
}

std::string shape_text(const GgufTensor& t) {
  std::string s = "[";
  for (int i = 0; i < t.n_dims; ++i) s += fmt::format("{}{}", i ? ", " : "", t.ne[i]);
  return s + "]";
}

// The sizes of the dimensions, each at least 1, with a product that fits.
void read_shape(Cursor& in, GgufTensor& t) {
  const int64_t dims_at = in.at();
  const uint32_t dims = in.u32("a number of dimensions");
  if (dims > uint32_t(kMaxGgufDimensions)) {
    in.fail("gguf.dimensions", dims_at, fmt::format("at most {} dimensions", kMaxGgufDimensions),
            fmt::format("{}", dims));
  }
  t.n_dims = int(dims);
  uint64_t product = 1;
  for (int i = 0; i < t.n_dims; ++i) {
    const int64_t at = in.at();
    const uint64_t n = in.u64("a dimension");
    if (n == 0) in.fail("gguf.shape", at, "a dimension of at least 1", "0");
    const std::optional<uint64_t> p = checked_mul(product, n);
    if (!p || *p > uint64_t(INT64_MAX)) {
      in.fail("gguf.shape", at, "fewer than 2^63 elements",
              fmt::format("{} in dimension {} over {}", n, i, product));
    }
    product = *p;
    t.ne[i] = int64_t(n);
  }
}

Info read_info(Cursor& in) {
  Info info;
  GgufTensor& t = info.tensor;
  in.in_tensor({});
  const int64_t entry = in.at();
  t.name = in.text(1, kMaxGgufNameBytes, "gguf.name_length", "a tensor name");
  in.in_tensor(t.name);
  if (!is_plain(t.name)) {
    in.fail("gguf.name_text", entry, "a tensor name of printable ASCII characters",
            '"' + printable(t.name) + '"');
  }
  info.shape_at = in.at() + 4;
  read_shape(in, t);
  const int64_t type_at = in.at();
  const uint32_t id = in.u32("a tensor type");
  const FormatInfo* format = find_format(id);
  if (!format) refuse_format(in, type_at, id);
  t.format = format->format;
  if (t.ne[0] % format->block != 0) {
    in.fail("gguf.row_length", info.shape_at,
            fmt::format("rows of whole blocks of {} {} weights", format->block, format->name),
            fmt::format("shape {}", shape_text(t)));
  }
  const std::optional<uint64_t> bytes =
      checked_mul(uint64_t(t.elements()) / uint64_t(format->block), uint64_t(format->bytes));
  if (!bytes || *bytes > uint64_t(INT64_MAX)) {
    in.fail("gguf.shape", info.shape_at, "fewer than 2^63 bytes", fmt::format("shape {}", shape_text(t)));
  }
  t.bytes = int64_t(*bytes);
  info.offset_at = in.at();
  info.offset = in.u64("a tensor offset");
  return info;
}

// Where the data begins: the end of the table, rounded up.
uint64_t data_start(const Cursor& in, int64_t alignment) {
  const uint64_t mask = uint64_t(alignment) - 1;
  return (uint64_t(in.at()) + mask) & ~mask;  // a position in a file: far from 2^64
}

void place(Cursor& in, Info& info, uint64_t start, int64_t alignment, std::span<const uint8_t> bytes) {
  GgufTensor& t = info.tensor;
  in.in_tensor(t.name);
  if (info.offset % uint64_t(alignment) != 0) {
    in.fail("gguf.offset_alignment", info.offset_at, fmt::format("an offset divisible by {}", alignment),
            fmt::format("{}", info.offset));
  }
  const std::optional<uint64_t> begin = checked_add(start, info.offset);
  const std::optional<uint64_t> end = begin ? checked_add(*begin, uint64_t(t.bytes)) : std::nullopt;
  if (!end || *end > bytes.size()) {
    in.fail("gguf.tensor_range", info.offset_at,
            fmt::format("{} bytes of data inside the file of {} bytes, whose data begins at {}", t.bytes,
                        bytes.size(), start),
            fmt::format("offset {}", info.offset), "the file may be cut: compare its size with the original");
  }
  t.offset = int64_t(*begin);
  t.data = bytes.data() + *begin;
}

void check_overlap(Cursor& in, std::span<const Info> infos) {
  std::vector<uint32_t> order(infos.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return infos[a].offset != infos[b].offset ? infos[a].offset < infos[b].offset : a < b;
  });
  for (size_t i = 1; i < order.size(); ++i) {
    const Info& before = infos[order[i - 1]];
    const Info& here = infos[order[i]];
    const int64_t end = before.tensor.offset + before.tensor.bytes;
    if (here.tensor.offset >= end) continue;
    in.in_tensor(here.tensor.name);
    in.fail("gguf.tensor_overlap", here.offset_at,
            fmt::format("data after tensor {}, which ends at byte {}", printable(before.tensor.name), end),
            fmt::format("data from byte {}", here.tensor.offset));
  }
}

}  // namespace

void read_tensors(Cursor& in, uint64_t count, std::span<const uint8_t> bytes, Part& part) {
  std::vector<Info> infos;
  infos.reserve(size_t(count));
  part.info_offsets.reserve(size_t(count));
  for (uint64_t i = 0; i < count; ++i) {
    part.info_offsets.push_back(in.at());
    infos.push_back(read_info(in));
  }
  const uint64_t start = data_start(in, part.alignment);
  for (Info& info : infos) place(in, info, start, part.alignment, bytes);
  check_overlap(in, infos);
  in.in_tensor({});
  part.tensors.reserve(infos.size());
  for (const Info& info : infos) part.tensors.push_back(info.tensor);
}

}  // namespace plumb
